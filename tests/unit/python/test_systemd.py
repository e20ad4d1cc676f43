"""systemd: the tests play its part, with a datagram socket for words and sockets to hand over."""

from __future__ import annotations

import configparser
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from casemate import config
from casemate.broker import Broker, read_status
from casemate.cli.serve import Orders, until_told
from casemate.cli.systemd import Supervisor, forget, inherited
from casemate.config import Configuration, Listener
from casemate.home import Home
from casemate.native import encode_connect
from tests.unit.python.commands import MAIN, PATIENCE_S, ROOT, Running, casemate, running
from tests.unit.python.test_broker import eventually
from tests.unit.python.test_cli_reload import Owed, closed
from tests.unit.python.test_reload import free_port, is_open, shown, tcp, tls

HAND_OVER = """
import os, sys
descriptors = [int(word) for word in sys.argv[1].split(",") if word]
for place, descriptor in enumerate(descriptors):
    os.dup2(descriptor, 100 + place)
for place in range(len(descriptors)):
    os.dup2(100 + place, 3 + place)
    os.close(100 + place)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(descriptors))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Systemd:
    """Plays systemd: hears what its service says."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._socket.settimeout(PATIENCE_S)

    def hears(self, words: str) -> dict[str, str]:
        """Waits for a message with this line; gives all of its lines."""
        while True:
            lines = self._socket.recv(4_096).decode().splitlines()
            if words in lines:
                return dict(line.split("=", 1) for line in lines)

    def heard(self) -> list[str]:
        """Gives all lines that wait to be heard."""
        self._socket.settimeout(0)
        lines: list[str] = []
        with suppress(BlockingIOError):
            while True:
                lines += self._socket.recv(4_096).decode().splitlines()
        return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    one = Systemd(tmp_path)
    yield one
    one.close()


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def home(tmp_path: Path, ports: tuple[int, int]) -> Path:
    folder = tmp_path / "home"
    Home.init(folder)
    text = "drain_s = 30\nshards = 2\n" + tls(ports[0])
    (folder / config.FILE_NAME).write_text(text + tcp(ports[1], 'anonymous_role = "operator"'))
    return folder


@contextmanager
def service(
    home: Path, systemd: Systemd, sockets: list[socket.socket], **variables: str
) -> Iterator[Running]:
    numbers = [one.fileno() for one in sockets]
    listed = ",".join(map(str, numbers))
    with running(
        "run", "--home", home,
        program=[sys.executable, "-c", HAND_OVER, listed, *MAIN],
        variables={"NOTIFY_SOCKET": str(systemd.address), **variables},
        descriptors=numbers,
    ) as one:  # fmt: skip
        yield one


def test_it_is_ready_when_clients_can_connect_and_says_when_it_ends(
    home: Path, systemd: Systemd, ports: tuple[int, int]
) -> None:
    with service(home, systemd, []) as one:
        systemd.hears("READY=1")
        assert is_open(ports[0])
        one.process.send_signal(signal.SIGHUP)
        assert int(systemd.hears("RELOADING=1")["MONOTONIC_USEC"]) > 0
        systemd.hears("READY=1")
        reload = read_status(home).reload
        assert reload is not None
        assert reload.generation == 1
        one.process.send_signal(signal.SIGTERM)
        assert int(systemd.hears("STOPPING=1")["EXTEND_TIMEOUT_USEC"]) > 30_000_000
        assert one.end() == 0


def test_a_broker_that_cannot_start_is_never_ready(home: Path, systemd: Systemd) -> None:
    (home / config.FILE_NAME).write_text("")
    with service(home, systemd, []) as one:
        assert one.end() == 3
    assert "READY=1" not in systemd.heard()


def test_it_gives_signs_of_life_while_its_shards_do(home: Path, systemd: Systemd) -> None:
    with service(home, systemd, [], WATCHDOG_USEC="200000") as one:
        systemd.hears("READY=1")
        for _ in range(3):
            systemd.hears("WATCHDOG=1")
        assert one.stop(signal.SIGTERM) == 0


class Stuck(Broker):
    """Is a broker of which one shard does not answer."""

    asked = 0

    def makes_progress(self, within_s: float) -> bool:
        self.asked += 1
        return False


def test_a_broker_that_hangs_gives_no_sign_of_life(home: Path, systemd: Systemd) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": str(systemd.address), "WATCHDOG_USEC": "20000"})
    orders = Orders()
    with Stuck(home) as broker:
        serving = threading.Thread(target=until_told, args=(broker, orders, supervisor))
        serving.start()
        eventually(lambda: broker.asked >= 3)
        orders.stop(signal.SIGTERM, None)
        serving.join()
    supervisor.ready()
    assert systemd.heard() == ["READY=1"]


def test_a_restart_loses_nobody_who_knocks_meanwhile(
    home: Path, systemd: Systemd, ports: tuple[int, int]
) -> None:
    """Goal: a rolling restart. Method: the test holds the ports, as systemd does."""
    with (
        socket.create_server(("127.0.0.1", ports[0])) as first,
        socket.create_server(("127.0.0.1", ports[1])) as second,
    ):
        with service(home, systemd, [first, second], LISTEN_FDNAMES="tls:tcp") as one:
            systemd.hears("READY=1")
            assert shown(ports[0])
            owed = Owed(ports[1])
            owed.acknowledge()
            one.process.send_signal(signal.SIGTERM)
            assert owed.goodbye() == 0x8B
            assert one.end() == 0, one.text
            assert "closed" not in one.text
        # Nobody accepts now.
        waiting = socket.create_connection(("127.0.0.1", ports[0]), PATIENCE_S)
        with service(home, systemd, [first, second], LISTEN_FDNAMES="tls:tcp") as one:
            systemd.hears("READY=1")
            owed = Owed(ports[1])
            owed.acknowledge()
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(waiting) as served:
                assert served.version() == "TLSv1.3"
            assert one.stop(signal.SIGTERM) == 0
            assert owed.goodbye() == 0x8B
    assert closed(ports[0])


def test_what_fits_no_listener_is_closed_with_a_warning(
    home: Path, systemd: Systemd, ports: tuple[int, int]
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as stranger,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket() as silent,
        socket.create_server(("127.0.0.1", ports[0])) as fitting,
    ):
        handed = [stranger, datagrams, silent, fitting]
        with service(home, systemd, handed, LISTEN_FDNAMES="a:b\x1b[31m:c") as one:
            systemd.hears("READY=1")
            assert shown(ports[0])
            assert is_open(ports[1])
            assert one.stop(signal.SIGTERM) == 0
        assert one.text.count("fits no listener and was closed") == 3
        assert "\x1b" not in one.text


def test_a_unix_socket_is_taken_and_its_file_stays(home: Path, systemd: Systemd) -> None:
    path = home / "mqtt.sock"
    text = (home / config.FILE_NAME).read_text()
    (home / config.FILE_NAME).write_text(
        f'{text}[[listeners]]\nkind = "unix"\nsocket = "{path}"\nanonymous_role = "operator"\n'
    )
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        held.listen()
        path.chmod(0o600)
        with service(home, systemd, [held]) as one:
            systemd.hears("READY=1")
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE_S)
                client.connect(str(path))
                client.sendall(encode_connect(5, "c"))
                assert client.recv(4_096)[0] == 0x20
            assert one.stop(signal.SIGTERM) == 0
            assert "fits no listener" not in one.text
        assert path.is_socket()


def test_sockets_of_another_process_are_left_alone() -> None:
    listener = Listener(kind="tcp", host="127.0.0.1", port=1)
    configuration = Configuration(listeners=(listener,))
    for given in (
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_FDS": "1"},
    ):
        assert inherited(configuration, given) == []


def test_children_do_not_inherit_what_was_meant_for_us(systemd: Systemd) -> None:
    given = {
        "NOTIFY_SOCKET": str(systemd.address), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1",
        "LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "KEPT": "1",
    }  # fmt: skip
    supervisor = Supervisor(given)
    assert supervisor.alive_every_s is None, "the watchdog waits for another process"
    forget(given)
    assert given == {"KEPT": "1"}
    supervisor.ready()
    systemd.hears("READY=1")


def test_a_manager_that_does_not_listen_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nowhere")}).ready()
        Supervisor({"NOTIFY_SOCKET": "@casemate-nowhere"}).ready()
    assert len(caplog.records) == 2
    Supervisor({}).ready()


@pytest.mark.parametrize("interval_us", ["", "0", "x", "-1"])
def test_without_a_watchdog_no_sign_of_life_is_given(interval_us: str) -> None:
    given = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": interval_us}
    assert Supervisor(given).alive_every_s is None


def unit(name: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string((ROOT / "docs" / "systemd" / name).read_text())
    return read


def test_the_units_say_what_the_program_understands(home: Path, systemd: Systemd) -> None:
    """Goal: the examples work. Method: their commands are run as they are written."""
    read = unit("casemate.service")["Service"]
    assert read["Type"] == "notify"
    start, reload = (read[key].split()[1:] for key in ("ExecStart", "ExecReload"))
    variable = read["Environment"].split("=")[0]
    assert variable == "CASEMATE_HOME"
    with running(
        *start, variables={variable: str(home), "NOTIFY_SOCKET": str(systemd.address)}
    ) as one:
        systemd.hears("READY=1")
        done = casemate(*reload, "--home", home, "--json")
        assert json.loads(done.stdout)["refused"] == []
        assert one.stop(signal.SIGTERM) == 0
    listener = Configuration.model_validate(
        {"listeners": [{"kind": "tls", "host": "0.0.0.0", "port": 8883}]}  # noqa: S104 - read only.
    ).listeners[0]
    stream = unit("casemate.socket")["Socket"]["ListenStream"]
    assert stream == f"{listener.host}:{listener.port}"
