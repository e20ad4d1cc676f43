"""Which options fit which kind of listener; one that would be ignored is refused instead."""

from __future__ import annotations

from casemate.config.section import contradiction

_ALL = frozenset({"tls", "tcp", "wss", "ws", "unix"})
_ADDRESSED = _ALL - {"unix"}
_ENCRYPTED = frozenset({"tls", "wss"})
_PLAINTEXT = frozenset({"tcp", "ws"})
_WEB = frozenset({"ws", "wss"})
_UNIX = frozenset({"unix"})

_FITTING = {
    "host": (_ADDRESSED, "has no address"),
    "port": (_ADDRESSED, "has no port"),
    "proxy_from": (_ADDRESSED, "has no load balancer in front"),
    "insecure_proxy_from_anywhere": (_ADDRESSED, "has no load balancer in front"),
    "socket": (_UNIX, "has no socket in the file system"),
    "mode": (_UNIX, "has no socket in the file system"),
    "insecure_socket_mode": (_UNIX, "has no socket in the file system"),
    "certificate": (_ENCRYPTED, "has no certificate"),
    "key": (_ENCRYPTED, "has no certificate"),
    "client_ca": (_ENCRYPTED, "cannot ask for certificates"),
    "client_certificates": (_ENCRYPTED, "cannot ask for certificates"),
    "insecure_tls12": (_ENCRYPTED, "speaks no TLS"),
    "insecure_plaintext": (_PLAINTEXT, "is never plaintext on a network"),
    "path": (_WEB, "has no path"),
    "origins": (_WEB, "has no origins"),
}
"""Each option that not every kind has: the kinds that have it, and what is wrong elsewhere."""

_REQUIRED = {
    "port": (_ADDRESSED, "port = …"),
    "socket": (_UNIX, 'socket = "mqtt.sock"'),
}
"""Options without a default: the kinds that need them, and how they are written."""


def fits(kind: str, option: str) -> bool:
    """Tells whether listeners of a kind have an option."""
    return kind in _FITTING.get(option, (_ALL, ""))[0]


def refuse_misfits(kind: str, said: set[str]) -> None:
    """Refuses an option that this kind of listener would ignore, and the lack of one it needs.

    Args:
        kind: Of the listener.
        said: The options that are set.

    Raises:
        PydanticCustomError: The first misfit, in the order of the options.

    Source: mosquitto#996, where a required certificate was ignored on one transport.
    """
    for option, (kinds, words) in _FITTING.items():
        if option in said and kind not in kinds:
            raise contradiction(option, f"a {kind} listener {words}", _hint(kind, option, kinds))
    for option, (kinds, example) in _REQUIRED.items():
        if kind in kinds and option not in said:
            raise contradiction(option, f"{option} is missing in [[listeners]]", f"add {example}")


def _hint(kind: str, option: str, kinds: frozenset[str]) -> str:
    if option.startswith("insecure_") or kind == "unix" or kinds is _UNIX:
        return "remove the line"
    if kinds is _WEB:
        return f'use kind = "{"wss" if kind == "tls" else "ws"}", or remove the line'
    return f'use kind = "{"wss" if kind == "ws" else "tls"}", or remove the line'
