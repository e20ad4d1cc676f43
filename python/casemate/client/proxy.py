"""Through a proxy of HTTP or SOCKS5: then the same bytes as without one (RFC 9110 §9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from casemate.client.socks import FIELD_BYTES_MAX, ask_socks
from casemate.errors import ConnectionLost, ProtocolViolation, Refused, Unreachable

HTTP_PORT = 80
SOCKS_PORT = 1080

_HEAD_BYTES_MAX = 8_192
_NOT_AUTHORIZED = 0x87


@dataclass(frozen=True, slots=True)
class Proxy:
    """Names a proxy.

    Attributes:
        host: Name or address.
        port: 1–65535.
        proof: User and password; None proves nothing; never shown.
        speaks_socks: It is a SOCKS5 proxy and not one of HTTP.
    """

    host: str
    port: int
    proof: tuple[str, str] | None = field(default=None, repr=False)
    speaks_socks: bool = False

    def __str__(self) -> str:
        """Gives `host:port`."""
        return f"{self.host}:{self.port}"


def read_proxy(url: str) -> Proxy:
    """Reads the URL of a proxy.

    Args:
        url: `http://[user[:password]@]host[:port]`, or `socks5h://…`, of which the `h` says that
            the proxy looks the name up; user and password are percent-encoded.

    Raises:
        ValueError: It is something else; it is never repeated, as it may hold a password.
    """
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("the proxy's URL holds a blank or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the proxy's URL cannot be read") from None
    speaks_socks = parts.scheme == "socks5h"
    is_known = speaks_socks or parts.scheme == "http"
    if not is_known or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("a proxy is http:// or socks5h://, then [user:password@]host[:port]")
    proof = None
    if parts.username is not None:
        proof = unquote(parts.username), unquote(parts.password or "")
        if speaks_socks and not all(0 < len(one.encode()) <= FIELD_BYTES_MAX for one in proof):
            raise ValueError("user and password of a SOCKS5 proxy have 1 to 255 bytes each")
    usual = SOCKS_PORT if speaks_socks else HTTP_PORT
    return Proxy(parts.hostname, port or usual, proof, speaks_socks)


def admit_target(host: str) -> None:
    """Raises ValueError where a host cannot stand in the request of a proxy."""
    if len(host) > FIELD_BYTES_MAX:
        raise ValueError("through a proxy, the host has at most 255 letters")
    if not re.fullmatch(r"[A-Za-z0-9._:\-]+", host):
        raise ValueError("through a proxy, the host is ASCII: an address, or a name as DNS has it")


async def pass_through(proxy: Proxy, host: str, port: int) -> socket.socket:
    """Gives a socket whose bytes reach the host, and nothing that the proxy has added to them.

    Args:
        proxy: Asked.
        host: Where to; the proxy looks the name up.
        port: Of that host.

    Raises:
        Refused: The proxy wants another proof (407).
        Unreachable: It cannot or will not connect there, or is not there itself.
        ProtocolViolation: It does not speak as it should.
        OSError: The connection failed.
    """
    raw = await _connect(proxy)
    try:
        if proxy.speaks_socks:
            await ask_socks(raw, str(proxy), host, port, proxy.proof)
        else:
            await _ask_http(raw, proxy, host, port)
    except BaseException:
        raw.close()
        raise
    return raw


async def _ask_http(raw: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    proof = ""
    if proxy.proof is not None:
        secret = base64.b64encode(":".join(proxy.proof).encode()).decode()
        proof = f"Proxy-Authorization: Basic {secret}\r\n"
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{proof}\r\n"
    await asyncio.get_running_loop().sock_sendall(raw, request.encode())
    _judge(await _head(raw, proxy), proxy, target)


async def _connect(proxy: Proxy) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Unreachable(f'the name of the proxy, "{proxy.host}", is unknown') from error
    failed: OSError | None = None
    for family, kind, protocol, _, address in found:
        raw = socket.socket(family, kind, protocol)
        raw.setblocking(False)
        try:
            await loop.sock_connect(raw, address)
        except OSError as error:
            raw.close()
            failed = error
        except BaseException:
            raw.close()
            raise
        else:
            return raw
    number = 0 if failed is None else failed.errno or 0
    words = os.strerror(number).lower() if number else ""
    raise Unreachable(f"the proxy {proxy} cannot be reached", cause=words) from failed


async def _head(raw: socket.socket, proxy: Proxy) -> bytes:
    """Reads byte by byte: what stands behind the head must not be taken for the broker's words."""
    loop = asyncio.get_running_loop()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = await loop.sock_recv(raw, 1)
        if not byte:
            raise ConnectionLost(f"the proxy {proxy} closed the connection")
        head += byte
        if len(head) > _HEAD_BYTES_MAX:
            raise ProtocolViolation(f"the proxy {proxy} answered without end")
    return head


def _judge(head: bytes, proxy: Proxy, target: str) -> None:
    status = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2})\b", head)
    if status is None:
        raise ProtocolViolation(f"the proxy {proxy} does not speak HTTP")
    code = int(status[1])
    if code == 407:
        raise Refused(
            f"the proxy {proxy} wants to know who asks",
            reason_code=_NOT_AUTHORIZED,
            hint="put user and password into the proxy's URL",
        )
    if not 200 <= code < 300:
        raise Unreachable(
            f"the proxy {proxy} does not connect to {target}", cause=f"HTTP status {code}"
        )
