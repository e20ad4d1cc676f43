"""What a running broker does otherwise than its home says: what waits for a reload or a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from casemate.config import Configuration, Listener, weakenings

if TYPE_CHECKING:
    from casemate.broker import Listening, Status


def drift(wanted: Configuration, running: Status) -> Iterator[str]:
    """Yields each difference in words; limits and the log are not in the status of a broker.

    Args:
        wanted: What the home says, with absolute paths.
        running: What its broker has said last.
    """
    listening = {one.name: one for one in running.listeners}
    configured = dict(wanted.named())
    for name, listener in configured.items():
        if name not in listening:
            yield f"listener {name} is configured, and does not listen"
        elif not _fits(listener, listening[name]):
            is_now, will_be = _words(listening[name]), _address(listener)
            yield f"listener {name} is {is_now}, and configured as {will_be}"
    for name in listening:
        if name not in configured:
            yield f"listener {name} listens, and is not configured"
    for weakening in weakenings(wanted):
        if weakening not in running.weakenings:
            yield f"configured, and not in force: {weakening}"
    if wanted.store.durability != running.store.durability:
        yield (
            f'durability is "{running.store.durability}", and configured as '
            f'"{wanted.store.durability}"'
        )
    if running.reload is not None:
        for option in running.reload.needs_restart:
            yield f"{option} has changed, and counts from the next start"


def unconfigured(wanted: Configuration, running: Status) -> Iterator[str]:
    """Yields each weakening that is in force and that the configuration does not say.

    It was taken back and waits for a reload, or a variable of the broker's own process sets it.
    """
    said = weakenings(wanted)
    for weakening in running.weakenings:
        if weakening not in said:
            yield f"in force, and not configured: {weakening}"


def _fits(wanted: Listener, running: Listening) -> bool:
    if (wanted.kind, wanted.client_certificates) != (running.kind, running.client_certificates):
        return False
    if wanted.kind == "unix":
        return str(wanted.socket) == running.path
    # Port 0 is any; the path of a WebSocket is the only one that other kinds have.
    return (
        wanted.host == running.host
        and wanted.port in (0, running.port)
        and (wanted.path or "") == running.path
    )


def _address(wanted: Listener) -> str:
    if wanted.kind == "unix":
        return f"unix on {wanted.socket}"
    port = wanted.port or "a free port"
    certificates = wanted.client_certificates
    return f"{wanted.kind} on {wanted.host}:{port}{wanted.path or ''} (certificates {certificates})"


def _words(running: Listening) -> str:
    if running.kind == "unix":
        return f"unix on {running.path}"
    certificates = running.client_certificates
    where = f"{running.host}:{running.port}{running.path}"
    return f"{running.kind} on {where} (certificates {certificates})"
