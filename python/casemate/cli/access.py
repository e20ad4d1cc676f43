"""Who gets in, and what they may do there: listeners, limits, roles and accounts as configured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from casemate.cli.finding import Finding
from casemate.config import Limits, Listener, Reading
from casemate.document import Place
from casemate.identity import Account
from casemate.policy import Policy, Rule

_RELOAD = 'then run "casemate reload"'
_RESTART = "then restart the broker"
_BY_ITSELF = "it comes into force by itself"


def listeners(reading: Reading) -> Iterator[Finding]:
    """Yields what listeners allow against their safe default."""
    for position, (name, listener) in enumerate(reading.configuration.named()):
        place: Place = ("listeners", position)
        yield from _weakened(reading, place, name, listener)
        asks_nobody = listener.is_encrypted and listener.client_certificates == "none"
        if asks_nobody and not listener.is_loopback:
            yield Finding(
                "certificates-off",
                f"listener {name} on {listener.host} asks for no client certificates",
                mending(reading, (*place, "client_certificates"), 'use "optional"', _RELOAD),
            )


def limits(reading: Reading) -> Iterator[Finding]:
    """Yields limits that are as high as can be said, and so bound nothing."""
    for name, field in Limits.model_fields.items():
        value = getattr(reading.configuration.limits, name)
        highest = next(one.le for one in field.metadata if hasattr(one, "le"))
        if value == highest:
            yield Finding(
                "limit-off",
                f"{name} = {value:,}, the highest there is",
                mending(reading, ("limits", name), f"use {field.default}, the default", _RESTART),
            )


def log(reading: Reading) -> Iterator[Finding]:
    """Yields a log that leaves out what guards need."""
    if reading.configuration.log.level == "error":
        yield Finding(
            "log-silent",
            'the log has level = "error"',
            mending(reading, ("log", "level"), 'use "warning"', _RESTART),
        )


def roles(
    policy: Policy, reading: Reading | None, accounts: tuple[Account, ...]
) -> Iterator[Finding]:
    """Yields what roles allow to devices and strangers, and roles that nobody has defined."""
    holders = _holders(reading, accounts)
    for role, names in holders.items():
        if role not in policy.roles:
            yield Finding(
                "role-undefined",
                f'role "{role}" of {_some(names)} is not in {policy.file.name}',
                f"add [roles.{role}] to {policy.file}; {_BY_ITSELF}",
            )
    for role, rules in policy.roles.items():
        things = [name for name in holders.get(role, ()) if not name.startswith("user ")]
        for rule in rules:
            if things and _is_wide(rule):
                yield Finding(
                    f"wide-{rule.operation}",
                    f'role "{role}" of {_some(things)} may {rule.operation} "{rule.filter}"',
                    f'narrow {rule.where}, such as to "devices/%u/#"; {_BY_ITSELF}',
                )
            levels = rule.filter.split("/")
            if "%c" in levels and "%u" not in levels:
                yield Finding(
                    "client-id-rule",
                    f'role "{role}" may {rule.operation} "{rule.filter}"',
                    f"write %u, the proven name, in place of %c in {rule.where}",
                )


def _weakened(reading: Reading, place: Place, name: str, listener: Listener) -> Iterator[Finding]:
    def mend(option: str, words: str) -> str:
        return mending(reading, (*place, option), words, _RELOAD)

    if listener.insecure_plaintext is not None:
        encrypted = "wss" if listener.is_web else "tls"
        yield Finding(
            "plaintext",
            f"listener {name} speaks plaintext on {listener.host} ({listener.insecure_plaintext})",
            mend("insecure_plaintext", f'remove it and use kind = "{encrypted}"'),
        )
    if listener.anonymous_role is not None:
        is_open = listener.insecure_anonymous is not None
        yield Finding(
            "anonymous-network" if is_open else "anonymous-local",
            f'listener {name} lets everybody in as "{listener.anonymous_role}"'
            + (f" ({listener.insecure_anonymous})" if is_open else ""),
            mend("anonymous_role", 'remove it, run "casemate device add" for each client'),
        )
    if listener.insecure_tls12 is not None:
        yield Finding(
            "tls12",
            f"listener {name} speaks TLS 1.2 too ({listener.insecure_tls12})",
            mend("insecure_tls12", "remove it"),
        )
    if listener.insecure_proxy_from_anywhere is not None:
        yield Finding(
            "proxy-anywhere",
            f"listener {name} believes PROXY headers from {listener.widest_proxy} "
            f"({listener.insecure_proxy_from_anywhere})",
            mend("proxy_from", "name the addresses of the load balancers alone"),
        )
    if listener.insecure_socket_mode is not None:
        yield Finding(
            "socket-open",
            f"listener {name} has a socket of mode {listener.mode} "
            f"({listener.insecure_socket_mode})",
            mend("mode", 'use "0600"'),
        )


def mending(reading: Reading, place: Place, words: str, then: str) -> str:
    """Says which line, or which variable, mends a finding, and what is to be done then."""
    source = reading.source(place)
    if source.kind == "environment":
        return f"unset or change {source.where}: {words}; then restart the broker"
    where = source.where or reading.document.file.name
    return f"{place[-1]} in {where}: {words}; {then}"


def _is_wide(rule: Rule) -> bool:
    return rule.filter.split("/")[0] in ("#", "+")


def _holders(reading: Reading | None, accounts: tuple[Account, ...]) -> Mapping[str, list[str]]:
    """Gives who holds each role: accounts that are not disabled, and strangers."""
    found: dict[str, list[str]] = {}
    for account in accounts:
        for role in () if account.disabled else account.roles:
            found.setdefault(role, []).append(f"{account.kind} {account.name}")
    for name, listener in () if reading is None else reading.configuration.named():
        if listener.anonymous_role is not None:
            found.setdefault(listener.anonymous_role, []).append(f"strangers on {name}")
    return found


def _some(names: list[str]) -> str:
    """Names the first of many."""
    more = len(names) - 1
    return names[0] if not more else f"{names[0]} and {more} more"
