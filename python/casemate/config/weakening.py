"""What a configuration allows against its safe default, with the reasons that were given."""

from __future__ import annotations

from collections.abc import Iterator

from casemate.config.configuration import Configuration
from casemate.config.listener import Listener


def weakenings(configuration: Configuration) -> tuple[str, ...]:
    """Lists each weakening: where it is, what it allows, and the written reason.

    Args:
        configuration: That was found valid.

    Example:
        ```python
        from casemate.config import Configuration, Listener, weakenings

        door = Listener(kind="tcp", host="::", port=1883, insecure_plaintext="a gateway, until May")
        (one,) = weakenings(Configuration(listeners=(door,)))
        print(one)  # tcp: plaintext off loopback (a gateway, until May)
        ```
    """
    found = [
        f"{name}: {allowed} ({reason})"
        for name, listener in configuration.named()
        for allowed, reason in _allowed(listener)
    ]
    plain = configuration.store.insecure_plain
    if plain is not None:
        found.append(f"store: data that is not encrypted is read ({plain})")
    return tuple(found)


def _allowed(listener: Listener) -> Iterator[tuple[str, str]]:
    if listener.insecure_plaintext is not None:
        yield "plaintext off loopback", listener.insecure_plaintext
    if listener.anonymous_role is not None:
        here = "on this machine" if listener.kind == "unix" else "on loopback"
        yield f"anonymous as {listener.anonymous_role}", listener.insecure_anonymous or here
    if listener.insecure_tls12 is not None:
        yield "TLS 1.2 beside TLS 1.3", listener.insecure_tls12
    if listener.insecure_proxy_from_anywhere is not None:
        yield (
            f"PROXY headers from {listener.widest_proxy}",
            listener.insecure_proxy_from_anywhere,
        )
    if listener.insecure_socket_mode is not None:
        yield f"a socket of mode {listener.mode}", listener.insecure_socket_mode
