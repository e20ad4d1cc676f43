"""up, run, status, pub, sub, lab and the demonstration, each as a process of its own.

What a newcomer pastes must work as it is printed; Ctrl-C must end each command in order.
"""

from __future__ import annotations

import json
import shlex
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate import config
from casemate.home import Home
from tests.unit.python.commands import ROOT, Running, casemate, running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def on_loopback(home: Path) -> None:
    """Makes a home listen on loopback, on a free port."""
    file = home / config.FILE_NAME
    text = file.read_text().replace('host = "0.0.0.0"', 'host = "127.0.0.1"')
    for port in (8883, 8084):
        text = text.replace(f"port = {port}", f"port = {free_port()}")
    file.write_text(text)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    Home.init(folder)
    on_loopback(folder)
    return folder


@pytest.fixture
def served(home: Path) -> Iterator[Path]:
    with running("run", "--home", home) as broker:
        broker.until("listening")
        yield home
        assert broker.stop(signal.SIGTERM) == 0, broker.text


@pytest.mark.parametrize("command", ["run", "up", "pub", "sub", "status", "lab"])
def test_each_command_explains_itself(command: str) -> None:
    done = casemate(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_run_serves_a_home_and_ends_in_order(home: Path) -> None:
    assert casemate("status", "--home", home).returncode == 1
    with running("run", "--home", home) as broker:
        assert "TLS 1.3" in broker.until("listening")
        assert "nobody is anonymous" in broker.until("posture")
        status = json.loads(casemate("status", "--home", home, "--json").stdout)
        assert status["running"]
        assert status["pid"] == broker.process.pid
        assert "connections" in casemate("status", "--home", home).stdout
        second = casemate("run", "--home", home)
        assert second.returncode != 0
        assert "already" in second.stderr
        assert broker.stop(signal.SIGINT) == 0
    assert casemate("status", "--home", home).returncode == 1


def test_run_without_a_home_says_what_to_do(tmp_path: Path) -> None:
    done = casemate("run", "--home", tmp_path / "nowhere")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_up_makes_a_home_and_every_line_it_prints_works(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    ports = ["--port", str(free_port()), "--wss-port", str(free_port())]
    with running("up", "--home", folder, "--host", "127.0.0.1", *ports) as up:
        up.until("Paste next")
        assert f"listening  wss://127.0.0.1:{ports[3]}/mqtt  TLS 1.3" in up.text
        up.until("casemate status")
        assert "SHA-256" in up.text
        for name in ("casemate.toml", "policy.toml", "pki/root.crt", "identities/operator"):
            assert str(folder / name) in up.text
        lines = [line.strip() for line in up.heard if line.startswith("  casemate ")]
        subscriber = next(line for line in lines if line.startswith("casemate sub"))
        with running(*shlex.split(subscriber)[1:], "-C", "1", "-W", "20") as watching:
            wait_for_subscription(folder)
            for line in lines:
                words = shlex.split(line)[1:]
                if words[0] != "sub":
                    assert retried(*words) == 0, line
            assert watching.end() == 0
            assert "21.5" in watching.text
        assert up.stop() == 0
    # A second run keeps what the first has made, and says less.
    with running("up", "--home", folder) as up:
        up.until("casemate status")
        assert "SHA-256" not in up.text
        assert up.stop(signal.SIGTERM) == 0
    assert casemate("up", "--home", folder, "--port", "0").returncode == 2


def test_up_refuses_a_host_that_is_no_address(tmp_path: Path) -> None:
    done = casemate("up", "--home", tmp_path / "home", "--host", "no-address")
    assert done.returncode == 2
    assert not (tmp_path / "home").exists()


def retried(*words: str) -> int:
    """Runs a command again for a moment: a new device is known within a second."""
    until = time.monotonic() + 10
    while True:
        done = casemate(*words)
        if done.returncode == 0 or time.monotonic() > until:
            sys.stderr.write(done.stderr)
            return done.returncode


def test_pub_and_sub_exchange_messages_as_local_identities(served: Path) -> None:
    for name, role in (("t7", "sensor"), ("watcher", "console")):
        assert casemate("device", "add", name, "--role", role, "--home", served).returncode == 0
    time.sleep(1.2)
    watch = ["sub", "devices/#", "--as", "watcher", "--home", served, "-W", "20", "-q", "1"]
    with running(*watch, "-C", "4", "-v") as watching:
        wait_for_subscription(served)
        for qos, text in (("0", "zero"), ("1", "one")):
            done = casemate("pub", "devices/t7/a", text, "--as", "t7", "--home", served, "-q", qos)
            assert done.returncode == 0, done.stderr
        done = casemate(
            "pub", "-t", "devices/t7/b", "-l", "--as", "t7", "--home", served, "-q", "1",
            stdin=b"first\nsecond\r\n",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert watching.end() == 0
        assert watching.text.splitlines() == [
            "devices/t7/a zero",
            "devices/t7/a one",
            "devices/t7/b first",
            "devices/t7/b second",
        ]


def wait_for_subscription(home: Path) -> None:
    """Waits for the first one that a broker has; its status is up to a second old."""
    until = time.monotonic() + 15
    while time.monotonic() < until:
        status = json.loads(casemate("status", "--home", home, "--json").stdout)
        if status["counters"]["subscriptions_now"]:
            return
    pytest.fail("nobody subscribed")


def test_a_denied_publish_fails_in_words(served: Path) -> None:
    assert casemate("device", "add", "t7", "--role", "sensor", "--home", served).returncode == 0
    time.sleep(1.2)
    done = casemate("pub", "devices/t8/a", "x", "--as", "t7", "--home", served, "-q", "1")
    assert done.returncode == 1
    assert "not authorized" in done.stderr
    assert "Traceback" not in done.stderr


def test_sub_gives_up_after_its_time(served: Path) -> None:
    assert casemate("device", "add", "w", "--role", "console", "--home", served).returncode == 0
    time.sleep(1.2)
    watch = ["sub", "devices/#", "--as", "w", "--home", served]
    assert casemate(*watch, "-W", "1").returncode == 27
    none_came = casemate(*watch, "-W", "1", "-C", "1")
    assert none_came.returncode == 27
    assert "0 of 1" in none_came.stderr
    with running(*watch, "-d") as endless:
        endless.until("is answered by 0x00")
        assert endless.stop(signal.SIGINT) == 0
        assert "Traceback" not in endless.text


@pytest.mark.parametrize(
    "arguments",
    [
        ["pub"],
        ["pub", "a"],
        ["pub", "a", "b", "c"],
        ["pub", "a", "b", "-n"],
        ["pub", "a", "b", "-q", "3"],
        ["pub", "a", "b", "-V", "6"],
        ["pub", "a", "b", "-P", "x", "--password-file", "y"],
        ["pub", "a", "b", "--insecure-plaintext", "--cafile", "x"],
        ["pub", "a", "b", "--as", "t7", "--cert", "x"],
        ["pub", "a", "b", "--will-payload", "x"],
        ["sub"],
        ["sub", "a", "-c"],
        ["lab", "--ws-port", "65536"],
        ["lab", "--host", "192.0.2.1"],
    ],
)
def test_contradictions_are_usage_errors(arguments: list[str]) -> None:
    done = casemate(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_pub_to_nobody_says_that_nothing_listens() -> None:
    done = casemate("pub", "-h", "127.0.0.1", "-p", str(free_port()), "a", "b")
    assert done.returncode == 1
    assert "nothing listens" in done.stderr


def test_pub_without_tls_off_loopback_is_refused_without_its_name() -> None:
    done = casemate("pub", "-h", "127.0.0.1", "-p", str(free_port()), "a", "b")
    assert "plaintext" not in done.stderr
    assert "insecure-plaintext" in casemate("pub", "--help").stdout


def test_lab_says_all_in_one_line_and_keeps_its_state(tmp_path: Path) -> None:
    data, pid_file = tmp_path / "data", tmp_path / "pid"
    arguments = ["lab", "--data", data, "--pid-file", pid_file, "--set", "receive_max=10"]
    found = []
    for _ in range(2):
        with running(*arguments) as lab:
            ready = json.loads(lab.until("{"))
            found.append(ready)
            assert pid_file.read_text().strip() == str(lab.process.pid) == str(ready["pid"])
            assert lab.stop(signal.SIGTERM) == 0, lab.text
        assert not pid_file.exists()
    first, second = found
    assert set(first) == {
        "host", "port", "tls_port", "mtls_port", "ws_port", "wss_port", "ws_path", "unix_socket",
        "ca_file", "client_cert", "client_key", "users", "pid", "data_dir",
    }  # fmt: skip
    assert first["host"] == "127.0.0.1"
    assert first["ws_path"] == "/mqtt"
    assert first["unix_socket"] == str(data / "mqtt.sock")
    ports = [first[name] for name in first if name.endswith("port")]
    assert len(set(ports)) == len(ports) == 5
    assert set(first["users"]) == {"all", "some"}
    assert {**first, "pid": 0} == {**second, "pid": 0}
    assert data.stat().st_mode & 0o077 == 0


def test_a_lab_listens_where_it_is_told_to(tmp_path: Path) -> None:
    socket_file, ports = tmp_path / "own.sock", [free_port(), free_port()]
    arguments = ["--ws-port", ports[0], "--wss-port", ports[1], "--unix-socket", socket_file]
    with running("lab", "--data", tmp_path / "data", *map(str, arguments)) as lab:
        ready = json.loads(lab.until("{"))
        assert [ready["ws_port"], ready["wss_port"]] == ports
        assert ready["unix_socket"] == str(socket_file)
        assert stat.S_ISSOCK(socket_file.stat().st_mode)
        assert socket_file.stat().st_mode & 0o777 == 0o600
        assert lab.stop() == 0
    assert not socket_file.exists()


def test_a_lab_in_a_deep_folder_has_its_socket_elsewhere(tmp_path: Path) -> None:
    with running("lab", "--data", tmp_path / ("deep" * 30)) as lab:
        socket_file = Path(json.loads(lab.until("{"))["unix_socket"])
        assert stat.S_ISSOCK(socket_file.stat().st_mode)
        assert socket_file.parent.stat().st_mode & 0o077 == 0
        assert lab.stop() == 0
    assert not socket_file.parent.exists()


def test_a_lab_without_data_leaves_nothing() -> None:
    with running("lab") as lab:
        folder = Path(json.loads(lab.until("{"))["data_dir"])
        assert folder.is_dir()
        assert lab.stop() == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("recieve_max=10", "receive_max"),
        ("receive_max", "key=value"),
        ("receive_max=many", "whole number"),
        ("receive_max=0", "receive_max"),
        ("argon2_time=0", "argon2_time"),
        ("sys_interval_s=86401", "sys_interval_s is 0 to 86,400"),
    ],
)
def test_a_wrong_setting_of_the_lab_is_named(setting: str, words: str) -> None:
    done = casemate("lab", "--set", setting)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demonstration_shows_this_machine(tmp_path: Path) -> None:
    for _ in range(2):
        done = demonstrate(tmp_path / "demo", "--seconds", "4")
        assert done.end() == 0, done.text
        assert "cpu/percent" in done.text
        assert "Paste next" in done.text
        assert "readings arrived" in done.text
    assert (tmp_path / "demo").stat().st_mode & 0o077 == 0


def test_the_demonstration_ends_in_order_on_ctrl_c(tmp_path: Path) -> None:
    one = demonstrate(tmp_path / "demo")
    one.until("cpu/percent")
    assert one.stop(signal.SIGINT) == 0, one.text
    assert "Traceback" not in one.text


def demonstrate(folder: Path, *arguments: str) -> Running:
    program = [sys.executable, "-m", "casemate.demo", "--home", str(folder), "--port", "0"]
    return Running([*program, *arguments], ROOT)


def test_no_command_shows_a_secret_of_the_lab_but_the_ready_line(tmp_path: Path) -> None:
    with running("lab", "--data", tmp_path) as lab:
        ready = json.loads(lab.until("{"))
        home = tmp_path / "home"
        shown = casemate("status", "--home", home).stdout
        shown += casemate("status", "--home", home, "--json").stdout
        assert lab.stop() == 0
        shown += "".join(lab.heard[1:])
    assert list(tmp_path.iterdir())
    for secret in ready["users"].values():
        assert secret not in shown
