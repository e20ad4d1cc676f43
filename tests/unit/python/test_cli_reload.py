"""reload, SIGHUP and the end of a serving command, each as a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from casemate import config
from casemate.broker import Status, read_status
from casemate.home import Home
from casemate.native import Decoder, encode_connect, encode_publish, encode_subscribe
from tests.unit.python.commands import Running, casemate, running
from tests.unit.python.test_reload import free_port, shown, tcp, tls


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def home(tmp_path: Path, ports: tuple[int, int]) -> Path:
    folder = tmp_path / "home"
    Home.init(folder)
    text = tls(ports[0]) + tcp(ports[1], 'anonymous_role = "operator"')
    (folder / config.FILE_NAME).write_text("drain_s = 30\n" + text)
    return folder


@pytest.fixture
def served(home: Path) -> Iterator[Running]:
    with running("run", "--home", home) as broker:
        broker.until("listening")
        broker.until("home ")
        yield broker


def status_when(home: Path, holds: Callable[[Status], bool]) -> Status:
    until = time.monotonic() + 20
    while True:
        status = read_status(home)
        if holds(status):
            return status
        assert time.monotonic() < until, status
        time.sleep(0.05)


def renew(home: Path) -> None:
    issued = Home.open(home).authority().issue_server(["localhost", "127.0.0.1"])
    (home / config.SERVER_KEY).write_bytes(issued.key_pem)
    (home / config.SERVER_CERTIFICATE).write_bytes(issued.chain_pem)


def test_reload_says_what_is_in_force_and_what_is_not(
    home: Path, served: Running, ports: tuple[int, int]
) -> None:
    done = casemate("reload", "--home", home)
    assert (done.returncode, done.stdout) == (0, "in force   nothing has changed\n")
    before = shown(ports[0])
    renew(home)
    done = casemate("reload", "--home", home, "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["changed"] == ["listener tls changed"]
    assert said["generation"] == 2
    assert "token" not in said
    assert shown(ports[0]) != before
    file = home / config.FILE_NAME
    good = file.read_text()
    file.write_text(good + "[limits]\nreceive_max = 9\n")
    done = casemate("reload", "--home", home)
    assert done.returncode == 0
    assert "limits.receive_max counts from the next start" in done.stdout
    file.write_text(good + "nonsense = 1\n")
    done = casemate("reload", "--home", home)
    assert done.returncode == 1
    assert "nonsense" in done.stderr
    assert "nonsense" in casemate("status", "--home", home).stdout
    assert served.stop(signal.SIGTERM) == 0
    done = casemate("reload", "--home", home)
    assert done.returncode == 1
    assert "no broker serves" in done.stderr


def test_sighup_reloads_and_a_wrong_file_ends_nothing(
    home: Path, served: Running, ports: tuple[int, int]
) -> None:
    before = shown(ports[0])
    renew(home)
    served.process.send_signal(signal.SIGHUP)
    status_when(home, lambda status: status.reload is not None and status.reload.generation == 1)
    assert shown(ports[0]) != before
    (home / config.FILE_NAME).write_text("")
    served.process.send_signal(signal.SIGHUP)
    status = status_when(home, lambda status: status.problems != ())
    assert status.reload is not None
    assert status.reload.refused == status.problems
    served.until("not wholly in force")
    assert served.stop(signal.SIGTERM) == 0


class Owed:
    """Is a client that got a message at QoS 1 and has not acknowledged it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        self._decoder = Decoder(5, 65_536)
        self._socket.sendall(
            encode_connect(5, "owed")
            + encode_subscribe(5, 1, [("t", 1, False, False, 0)])
            + encode_publish(5, "t", b"1", qos=1, packet_id=7)
        )
        heard: list[object] = []
        while len(heard) < 4:
            heard += self._decoder.feed(self._socket.recv(4_096))
        self.message = next(one for one in heard if hasattr(one, "topic"))

    def acknowledge(self) -> None:
        number = int(self.message.packet_id)  # type: ignore[attr-defined]
        self._socket.sendall(b"\x40\x02" + number.to_bytes(2))

    def goodbye(self) -> int:
        """Waits for the DISCONNECT that ends the connection; gives its reason code."""
        heard: list[object] = []
        while data := self._socket.recv(4_096):
            heard += self._decoder.feed(data)
        self._socket.close()
        return int(heard[-1].reason)  # type: ignore[attr-defined]


def closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_the_first_signal_drains(home: Path, served: Running, ports: tuple[int, int]) -> None:
    owed = Owed(ports[1])
    served.process.send_signal(signal.SIGTERM)
    while not closed(ports[1]):
        assert served.process.poll() is None
    # The port is closed, and the broker waits for what it owes.
    assert served.process.poll() is None
    owed.acknowledge()
    assert owed.goodbye() == 0x8B
    assert served.end() == 0


def test_the_second_signal_cuts(home: Path, served: Running, ports: tuple[int, int]) -> None:
    owed = Owed(ports[1])
    served.process.send_signal(signal.SIGTERM)
    while not closed(ports[1]):
        assert served.process.poll() is None
    assert served.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert owed.goodbye() == 0x8B


def test_a_server_reference_of_the_configuration_is_said(
    home: Path, served: Running, ports: tuple[int, int]
) -> None:
    file = home / config.FILE_NAME
    # It counts from the reload on: where to go may be known only when the other one stands.
    file.write_text('server_reference = "other.example:8883"\n' + file.read_text())
    assert casemate("reload", "--home", home).returncode == 0
    owed = Owed(ports[1])
    owed.acknowledge()
    served.process.send_signal(signal.SIGTERM)
    assert owed.goodbye() == 0x9C
    assert served.end() == 0
