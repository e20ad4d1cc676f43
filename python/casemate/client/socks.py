"""Through a SOCKS5 proxy: CONNECT by name, proven by user and password (RFC 1928, RFC 1929)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from casemate.errors import ConnectionLost, ProtocolViolation, Refused, Unreachable

FIELD_BYTES_MAX = 255
"""A name, a user and a password each have one byte for their length."""

_VERSION = 5
_PROOF_VERSION = 1
_CONNECT = 1
_NO_PROOF, _PASSWORD, _NONE_OF_THEM = 0, 2, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NOT_AUTHORIZED = 0x87

_REFUSALS = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}


async def ask_socks(
    raw: socket.socket, proxy: str, host: str, port: int, proof: tuple[str, str] | None
) -> None:
    """Has a SOCKS5 proxy connect; what it sends after that is the host's.

    Args:
        raw: Connected to the proxy, not blocking.
        proxy: Its name, for messages.
        host: Where to; the proxy looks a name up.
        port: Of that host.
        proof: User and password, each at most 255 bytes of UTF-8; None proves nothing.

    Raises:
        Refused: The proxy wants another proof.
        Unreachable: It cannot or will not connect there.
        ProtocolViolation: It does not speak SOCKS5.
        ConnectionLost: It hung up.
        OSError: The connection failed.
    """
    loop = asyncio.get_running_loop()
    methods = [_NO_PROOF] if proof is None else [_NO_PROOF, _PASSWORD]
    await loop.sock_sendall(raw, bytes([_VERSION, len(methods), *methods]))
    version, method = await _read(raw, 2, proxy)
    if version != _VERSION or method not in (*methods, _NONE_OF_THEM):
        raise ProtocolViolation(f"the proxy {proxy} does not speak SOCKS5")
    if method == _NONE_OF_THEM:
        raise _unproven(proxy)
    if method == _PASSWORD and proof is not None:
        fields = b"".join(bytes([len(one)]) + one for one in (text.encode() for text in proof))
        await loop.sock_sendall(raw, bytes([_PROOF_VERSION]) + fields)
        if (await _read(raw, 2, proxy))[1] != 0:
            raise _unproven(proxy)
    request = bytes([_VERSION, _CONNECT, 0]) + _address(host) + port.to_bytes(2)
    await loop.sock_sendall(raw, request)
    version, answer, _, kind = await _read(raw, 4, proxy)
    if version != _VERSION:
        raise ProtocolViolation(f"the proxy {proxy} does not speak SOCKS5")
    if answer != 0:
        words = _REFUSALS.get(answer, f"SOCKS answer {answer}")
        raise Unreachable(f"the proxy {proxy} does not connect to {host}:{port}", cause=words)
    # The address that it connects from is read, as it stands before the host's bytes.
    size = {_IPV4: 4, _IPV6: 16}.get(kind)
    if kind == _NAME:
        size = (await _read(raw, 1, proxy))[0]
    if size is None:
        raise ProtocolViolation(f"the proxy {proxy} does not speak SOCKS5")
    await _read(raw, size + 2, proxy)


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _unproven(proxy: str) -> Refused:
    return Refused(
        f"the proxy {proxy} wants to know who asks",
        reason_code=_NOT_AUTHORIZED,
        hint="put user and password into the proxy's URL",
    )


async def _read(raw: socket.socket, size: int, proxy: str) -> bytes:
    """Reads exactly so much: what stands behind it must not be taken for the proxy's words."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(raw, size - len(data))
        if not part:
            raise ConnectionLost(f"the proxy {proxy} closed the connection")
        data += part
    return data
