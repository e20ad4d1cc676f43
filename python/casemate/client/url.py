"""A broker's URL: `mqtts://`, `mqtt://`, `wss://`, `ws://` or `unix://`, read without guessing."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

SCHEMES = ("mqtts", "mqtt", "wss", "ws", "unix")
WEBSOCKET_PATH = "/mqtt"
"""Where brokers usually have their WebSocket; taken where a URL names no path."""

_SHORT_UNIX = re.compile(r"unix:/(?!/)", re.IGNORECASE)

# What other libraries call the same thing.
_MEANT = {
    "tcp": "mqtt",
    "ssl": "mqtts",
    "tls": "mqtts",
    "tcps": "mqtts",
    "mqtt+ssl": "mqtts",
    "mqtt+unix": "unix",
    "http": "ws",
    "https": "wss",
}


def read_url(url: str) -> dict[str, Any]:
    """Gives the arguments of a `Client` that a URL says.

    Args:
        url: `scheme://[user[:password]@]host[:port][/path]`, or `unix:///path/of/socket`, which
            may be written `unix:/path/of/socket`. User and password are percent-encoded. A path
            belongs to `ws` and `wss` only.

    Raises:
        ValueError: The URL cannot be; it is never repeated, as it may hold a password.
    """
    # The standard parser drops line breaks without a word.
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("the URL holds a blank or a control character; write it as %XX")
    if _SHORT_UNIX.match(url):
        url = f"unix://{url[len('unix:') :]}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the URL cannot be read; is a bracket or the port wrong?") from None
    if parts.scheme not in SCHEMES or "://" not in url:
        meant = _MEANT.get(parts.scheme)
        hint = f"; did you mean {meant}://?" if meant else ""
        raise ValueError(f"the URL begins with {', '.join(f'{s}://' for s in SCHEMES)}{hint}")
    if "#" in url:
        raise ValueError("the URL holds a #; in a user name or password write it as %23")
    said = _unix(parts) if parts.scheme == "unix" else _tcp(parts, port)
    if parts.username is not None:
        said["username"] = _decoded(parts.username)
    if parts.password is not None:
        said["password"] = _decoded(parts.password)
    return said


def _unix(parts: SplitResult) -> dict[str, Any]:
    if parts.hostname or not parts.path.startswith("/") or parts.query:
        raise ValueError("a unix socket is written unix:///path, with three slashes")
    return {"unix_socket": _decoded(parts.path)}


def _tcp(parts: SplitResult, port: int | None) -> dict[str, Any]:
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if port == 0:
        raise ValueError("the URL's port is 1–65,535")
    said: dict[str, Any] = {"host": _decoded(parts.hostname)}
    if port is not None:
        said["port"] = port
    if parts.scheme in ("mqtt", "ws"):
        said["tls"] = False
    if parts.scheme in ("ws", "wss"):
        query = f"?{parts.query}" if parts.query else ""
        said["websocket_path"] = (parts.path or WEBSOCKET_PATH) + query
    elif parts.path not in ("", "/") or parts.query:
        raise ValueError(f"{parts.scheme}:// takes no path; topics are named when publishing")
    return said


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("a percent-encoded part of the URL is not UTF-8") from None
