"""Where a broker is: by TCP or a unix socket, with or without TLS, with or without WebSocket."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from casemate.errors import Untrusted

if TYPE_CHECKING:
    from casemate.client.proxy import Proxy

TLS_PORT = 8883
PLAIN_PORT = 1883
WSS_PORT = 443
WS_PORT = 80

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PLAIN_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_OWN_HEADERS = frozenset({"host", "upgrade", "connection"})


@dataclass(frozen=True, slots=True)
class Door:
    """Says how a WebSocket is asked for.

    Attributes:
        path: Begins with a slash; a query may follow.
        headers: Sent besides those of the handshake; they may hold secrets and are never shown.
    """

    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Names the broker and how it is reached.

    Attributes:
        host: Name or address; with TLS the certificate must be valid for it.
        port: 1–65535.
        tls: Who is trusted and what is shown; None is plaintext.
        plaintext_anywhere: Plaintext is accepted off loopback too.
        unix_socket: Path of a socket on this machine, in place of host and port.
        door: How a WebSocket is asked for; None is MQTT without one.
        local_address: Own address from which to connect; None lets the system choose.
        proxy: A proxy between; None connects directly.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    plaintext_anywhere: bool = False
    unix_socket: str | None = None
    door: Door | None = None
    local_address: str | None = None
    proxy: Proxy | None = None

    def __str__(self) -> str:
        """Gives the socket's path, or `host:port` with IPv6 in brackets."""
        if self.unix_socket is not None:
            return self.unix_socket
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def locate(
    host: str,
    port: int | None,
    tls: ssl.SSLContext | None,
    *,
    insecure_plaintext: bool = False,
    unix_socket: str | Path | None = None,
    websocket_path: str | None = None,
    websocket_headers: Iterable[tuple[str, str]] = (),
    local_address: str | None = None,
    proxy: str | None = None,
) -> Address:
    """Checks how a broker is to be reached.

    Args:
        host: Name or address; empty only where a unix socket is named.
        port: None takes the usual one of the transport.
        tls: None is plaintext.
        insecure_plaintext: Plaintext is accepted off loopback too.
        unix_socket: In place of host and port.
        websocket_path: None is MQTT without WebSocket.
        websocket_headers: For the handshake.
        local_address: Own address from which to connect.
        proxy: URL of a proxy.

    Raises:
        ValueError: Something cannot be, or two things contradict each other.
        Untrusted: Plaintext would leave this machine.
    """
    door = _door(websocket_path, tuple(websocket_headers))
    if unix_socket is not None:
        if any(one is not None for one in (port, local_address, proxy)):
            raise ValueError("a unix socket has no port, no local address and no proxy")
        return Address(host or "localhost", 0, tls, False, str(unix_socket), door)
    if not host:
        raise ValueError("name the broker's host, or its unix socket")
    if "://" in host:
        raise ValueError("host is a name or an address; Client.from_url takes a URL")
    _admit_host(host)
    if local_address is not None and not _is_address(local_address):
        raise ValueError("local_address is an IP address of this machine")
    if port is None:
        ports = (PLAIN_PORT, TLS_PORT) if door is None else (WS_PORT, WSS_PORT)
        port = ports[tls is not None]
    if not 1 <= port <= 65_535:
        raise ValueError("port is 1–65,535")
    if tls is None and not insecure_plaintext and (proxy or not is_loopback(host)):
        raise plaintext_leaves("the proxy" if proxy else host)
    between = None
    if proxy is not None:
        # Loaded where it is needed: most clients go through none.
        from casemate.client.proxy import admit_target, read_proxy

        between = read_proxy(proxy)
        admit_target(host)
        if local_address is not None:
            raise ValueError("local_address and proxy cannot be combined")
    return Address(host, port, tls, insecure_plaintext, None, door, local_address, between)


def plaintext_leaves(host: object) -> Untrusted:
    """Makes the error of plaintext that would leave this machine."""
    return Untrusted(
        f"{host} is not this machine, and the connection would be in plaintext",
        hint="use TLS, or say insecure_plaintext=True if everybody on the way may read it",
    )


def is_loopback(host: str) -> bool:
    """Says whether a host can only be this machine, without looking names up."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _admit_host(host: str) -> None:
    """Raises ValueError where a host can be no name, as DNS has them, and no address."""
    if _PLAIN_NAME.fullmatch(host) or _is_address(host):
        return
    if re.search(r"[\[\]:]", host):
        raise ValueError("the host is a name or an address alone: no port, and IPv6 unbracketed")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError("the host can be no name: a part of it is empty or too long") from error


def _door(path: str | None, headers: tuple[tuple[str, str], ...]) -> Door | None:
    if path is None:
        if headers:
            raise ValueError("websocket_headers mean nothing without websocket_path")
        return None
    if not re.fullmatch(r"/[!-~]*", path) or "#" in path:
        raise ValueError("websocket_path begins with / and is printable ASCII, other bytes as %XX")
    for name, value in headers:
        # Neither is repeated in the message: a header may hold a token.
        if not _HEADER_NAME.fullmatch(name) or not re.fullmatch(r"[\t -~]*", value):
            raise ValueError("a name or value of websocket_headers cannot stand in a header")
        if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"the header {name} belongs to the handshake")
    return Door(path, headers)
