"""The doors of a lab, and of a home: each answers as it says, and there is no other."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from casemate import native
from tests.unit.python.commands import running

ACCEPTED = b"\x20"
"""The first byte of a CONNACK."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with running("lab", "--data", tmp_path_factory.mktemp("lab")) as one:
        yield json.loads(one.until("data_dir"))
        assert one.stop() == 0, one.text


def hello(lab: dict[str, Any], password: str | None = None) -> bytes:
    """Gives a CONNECT of the user `all`, with its own password or another."""
    secret = lab["users"]["all"] if password is None else password
    return native.encode_connect(4, "probe", username="all", password=secret.encode())


@contextmanager
def opened(lab: dict[str, Any], door: str, *, certificate: bool = False) -> Iterator[socket.socket]:
    """Connects to a door; over TLS where it speaks TLS."""
    with socket.create_connection((lab["host"], lab[door]), timeout=20) as plain:
        if door != "wss_port":
            yield plain
            return
        trust = ssl.create_default_context(cafile=lab["ca_file"])
        if certificate:
            trust.load_cert_chain(lab["client_cert"], lab["client_key"])
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
            yield peer


def upgraded(peer: socket.socket, path: str) -> str:
    """Asks for a WebSocket; gives the first line and the headers of the answer."""
    key = base64.b64encode(os.urandom(16)).decode()
    peer.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = peer.recv(1)
        if not piece:
            break
        answer += piece
    return answer.decode("latin-1")


def framed(packet: bytes) -> bytes:
    """Puts a packet into one masked binary frame, with a mask of zeros."""
    length = (
        bytes([0x80 | len(packet)]) if len(packet) < 126 else b"\xfe\x00" + bytes([len(packet)])
    )
    return b"\x82" + length + bytes(4) + packet


@pytest.mark.parametrize("door", ["ws_port", "wss_port"])
def test_a_web_door_of_the_lab_takes_mqtt_and_checks_the_password(
    lab: dict[str, Any], door: str
) -> None:
    for password, code in ((None, 0), ("wrong", 4)):
        with opened(lab, door) as peer:
            answer = upgraded(peer, lab["ws_path"])
            assert answer.startswith("HTTP/1.1 101 ")
            assert "sec-websocket-protocol: mqtt" in answer.lower()
            peer.sendall(framed(hello(lab, password)))
            assert peer.recv(2) == b"\x82\x04"
            assert peer.recv(4) == b"\x20\x02\x00" + bytes([code])


def test_a_certificate_proves_a_client_on_wss(lab: dict[str, Any]) -> None:
    """Mosquitto #996: certificates were ignored on one transport."""
    with opened(lab, "wss_port", certificate=True) as peer:
        assert upgraded(peer, lab["ws_path"]).startswith("HTTP/1.1 101 ")
        peer.sendall(framed(native.encode_connect(4, "probe")))
        assert peer.recv(6) == b"\x82\x04\x20\x02\x00\x00"


def test_the_unix_socket_takes_mqtt_and_checks_the_password(lab: dict[str, Any]) -> None:
    file = Path(lab["unix_socket"])
    assert stat.S_ISSOCK(file.stat().st_mode)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for password, code in ((None, 0), ("wrong", 4)):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(str(file))
            peer.sendall(hello(lab, password))
            assert peer.recv(4) == b"\x20\x02\x00" + bytes([code])


def test_another_path_is_no_door(lab: dict[str, Any]) -> None:
    with opened(lab, "ws_port") as peer:
        assert "101" not in upgraded(peer, "/other").splitlines()[0]


def listening(pid: int) -> set[tuple[str, int]]:
    """Gives what a process listens on over TCP, read from the system."""
    open_files = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {one[8:-1] for one in open_files if one.startswith("socket:[")}
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            host, port = fields[1].split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(host)[::-1]), int(port, 16)))
    return found


def test_a_lab_listens_on_loopback_where_it_says_and_nowhere_else(lab: dict[str, Any]) -> None:
    """Mosquitto #2283: an option opened a door that nobody had declared."""
    ports = {lab[name] for name in lab if name.endswith("port")}
    assert listening(lab["pid"]) == {("127.0.0.1", port) for port in ports}
    inherited = Path(f"/proc/{lab['pid']}/net/tcp6").read_text()
    assert not [
        line
        for line in inherited.splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[1].split(":")[1], 16) in ports
    ]
