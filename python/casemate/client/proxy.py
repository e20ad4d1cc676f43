"""Through an HTTP proxy: CONNECT, and then the same bytes as without one (RFC 9110 §9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from casemate.errors import ConnectionLost, ProtocolViolation, Refused, Unreachable

HTTP_PORT = 80

_HEAD_BYTES_MAX = 8_192
_NOT_AUTHORIZED = 0x87


@dataclass(frozen=True, slots=True)
class Proxy:
    """Names a proxy.

    Attributes:
        host: Name or address.
        port: 1–65535.
        authorization: Value of Proxy-Authorization; empty where nothing is proven; never shown.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Gives `host:port`."""
        return f"{self.host}:{self.port}"


def read_proxy(url: str) -> Proxy:
    """Reads the URL of a proxy.

    Args:
        url: `http://[user[:password]@]host[:port]`; user and password are percent-encoded.

    Raises:
        ValueError: It is something else; it is never repeated, as it may hold a password.
    """
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("the proxy's URL holds a blank or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port or HTTP_PORT
    except ValueError:
        raise ValueError("the proxy's URL cannot be read") from None
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("a proxy is http://[user:password@]host[:port]")
    proof = ""
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        proof = f"Basic {base64.b64encode(secret.encode()).decode()}"
    return Proxy(parts.hostname, port, proof)


def admit_target(host: str) -> None:
    """Raises ValueError where a host cannot stand in the request of a proxy."""
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
        ProtocolViolation: It does not speak HTTP.
        OSError: The connection failed.
    """
    loop = asyncio.get_running_loop()
    raw = await _connect(proxy)
    try:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        proof = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{proof}\r\n"
        await loop.sock_sendall(raw, request.encode())
        _judge(await _head(raw, proxy), proxy, target)
    except BaseException:
        raw.close()
        raise
    return raw


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
