"""Reload: what changes while clients stay, and what keeps the last good state.

Each test runs the real engine on loopback; changes are made as an operator makes them, on disk.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from casemate import config, identity, pki, policy
from casemate.broker import Broker, ask_to_reload, read_status
from casemate.client import Client
from casemate.errors import BrokerError, BrokerStopped, Refused
from casemate.home import Home
from casemate.identity import Accounts
from casemate.passwords import PasswordCost
from tests.unit.python.test_broker import CHEAP, SECRET, accounts, ends, eventually


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def write(home: Path, text: str) -> None:
    (home / config.FILE_NAME).write_text(text)


def tls(port: int, *more: str) -> str:
    lines = ["[[listeners]]", 'kind = "tls"', 'host = "127.0.0.1"', f"port = {port}", *more]
    return "\n".join(lines) + "\n"


def tcp(port: int, *more: str) -> str:
    lines = ["[[listeners]]", 'kind = "tcp"', 'host = "127.0.0.1"', f"port = {port}", *more]
    return "\n".join(lines) + "\n"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def home(tmp_path: Path, port: int) -> Path:
    folder = tmp_path / "home"
    Home.init(folder)
    Home.open(folder).add_device("t7", "sensor")
    write(folder, tls(port))
    return folder


@pytest.fixture
def broker(home: Path) -> Iterator[Broker]:
    with Broker(home, password_cost=CHEAP) as one:
        yield one


def shown(port: int) -> bytes:
    """Gives the certificate that a TLS listener shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        certificate = wrapped.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
    except ConnectionRefusedError:
        return False
    return True


def renew(home: Path) -> None:
    """Gives the home another server certificate, as `casemate pki renew` would."""
    authority = Home.open(home).authority()
    issued = authority.issue_server(["localhost", "127.0.0.1"])
    (home / config.SERVER_KEY).write_bytes(issued.key_pem)
    (home / config.SERVER_CERTIFICATE).write_bytes(issued.chain_pem)


async def test_mosquitto_524_1402_a_renewed_certificate_is_shown_and_nobody_is_kicked(
    broker: Broker, home: Path, port: int
) -> None:
    before = shown(port)
    async with broker.client("t7", reconnect=False) as client:
        renew(home)
        outcome = broker.reload()
        assert outcome.changed == ("listener tls changed",)
        assert outcome.refused == ()
        assert shown(port) != before
        await client.publish("devices/t7/temp", "1", qos=1)
    assert broker.reload().changed == ()
    assert [broker.reload().generation for _ in range(2)] == [3, 4]


async def test_listeners_come_and_go_while_clients_stay(
    broker: Broker, home: Path, port: int
) -> None:
    other = free_port()
    async with broker.client("t7", reconnect=False) as client:
        write(home, tls(port) + tcp(other))
        assert broker.reload().changed == ("listener tcp added",)
        assert is_open(other)
        assert {one.name for one in broker.addresses} == {"tls", "tcp"}
        write(home, tcp(other))
        assert broker.reload().changed == ("listener tls removed",)
        assert not is_open(port)
        await client.publish("devices/t7/temp", "1", qos=1)
    assert [one.name for one in read_status(home).listeners] == ["tcp"]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("an empty file", ""),
        ("nothing but a comment", "# nothing\n"),
        ("broken TOML", "[[listeners]\n"),
        ("an unknown key", 'x = 1\n[[listeners]]\nkind = "tls"\nport = 0\n'),
        ("no certificate", tls(0, 'certificate = "none.crt"', 'key = "none.key"')),
        ("an open door without a reason", '[[listeners]]\nkind="tcp"\nhost="0.0.0.0"\nport=0\n'),
    ],
)
async def test_cve_2018_12550_a_wrong_configuration_keeps_the_last_good_state(
    broker: Broker, home: Path, port: int, what: str, text: str
) -> None:
    good = (home / config.FILE_NAME).read_text()
    async with broker.client("t7", reconnect=False) as client:
        write(home, text)
        outcome = broker.reload()
        assert len(outcome.refused) == 1, what
        assert outcome.changed == ()
        assert broker.problems["configuration"].message == outcome.refused[0]
        assert read_status(home).problems == outcome.refused
        assert is_open(port)
        assert [one.port for one in broker.addresses] == [port]
        await client.publish("devices/t7/temp", "1", qos=1)
        write(home, good)
        assert broker.reload().refused == ()
        assert broker.problems == {}


def test_a_port_in_use_and_a_foreign_key_change_nothing(
    broker: Broker, home: Path, port: int
) -> None:
    other = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        write(home, tls(port) + tcp(other) + tcp(number))
        assert str(number) in broker.reload().refused[0]
        assert not is_open(other)
    foreign = home / "foreign.key"
    shutil.copy(home / "identities" / "t7" / "client.key", foreign)
    certificate = home / config.SERVER_CERTIFICATE
    write(home, tcp(other) + tls(port, f'certificate = "{certificate}"', f'key = "{foreign}"'))
    assert "key" in broker.reload().refused[0]
    assert not is_open(other)
    assert is_open(port)


def test_a_file_that_others_may_change_is_not_trusted(broker: Broker, home: Path) -> None:
    (home / config.FILE_NAME).chmod(0o666)
    assert "can be changed by other accounts" in broker.reload().refused[0]
    (home / config.FILE_NAME).chmod(0o600)
    (home / config.SERVER_KEY).chmod(0o644)
    assert "open to other accounts" in broker.reload().refused[0]


def test_a_new_certificate_that_has_expired_or_is_not_valid_yet_is_refused(
    broker: Broker, home: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shown(port)
    renew(home)
    now = pki.utc_now()
    for shift, words in ((timedelta(days=400), "expired on"), (timedelta(days=-1), "valid from")):
        monkeypatch.setattr(pki, "utc_now", lambda shift=shift: now + shift)
        assert words in broker.reload().refused[0]
        assert shown(port) == before
    monkeypatch.undo()
    assert broker.reload().refused == ()
    # One that expires while it is in force keeps nothing else from changing.
    monkeypatch.setattr(pki, "utc_now", lambda: now + timedelta(days=400))
    write(home, tls(port) + tcp(free_port()))
    assert broker.reload().changed == ("listener tcp added",)


def test_a_listener_with_a_role_that_nobody_defines_is_told(
    broker: Broker, home: Path, port: int
) -> None:
    write(home, tls(port) + tcp(free_port(), 'anonymous_role = "typo"'))
    assert broker.reload().refused == ()
    assert "typo" in broker.problems["roles"].message
    write(home, tls(port))
    broker.reload()
    assert broker.problems == {}


def test_what_needs_a_restart_is_named_and_forgotten_when_it_is_undone(
    broker: Broker, home: Path, port: int
) -> None:
    write(home, "shards = 3\n" + tls(port) + "[limits]\nreceive_max = 7\n")
    outcome = broker.reload()
    assert set(outcome.needs_restart) == {"shards", "limits.receive_max"}
    assert outcome.refused == ()
    assert "limits.receive_max" in broker.problems["restart"].message
    write(home, tls(port))
    assert broker.reload().needs_restart == ()
    assert broker.problems == {}


def every_descriptor() -> list[int]:
    """Takes every descriptor that this process may still open, after making them few."""
    held: list[int] = []
    used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (used + 8, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    with suppress(OSError):
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    return held


async def test_cve_2017_7652_without_descriptors_the_policy_stays(
    broker: Broker, home: Path, port: int
) -> None:
    """Goal: a reload that can open nothing changes nothing. Method: no descriptor is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    async with broker.client("t7", reconnect=False) as client:
        write(home, tls(port) + tcp(free_port()))
        (home / policy.FILE_NAME).write_text(
            '[roles.sensor]\nallow = [{ publish = "#" }]\n'
            "[roles.operator]\nallow = []\n[roles.console]\nallow = []\n"
        )
        try:
            held = every_descriptor()
            outcome = broker.reload()
            await client.publish("devices/t7/temp", "1", qos=1)
            with pytest.raises(Refused):
                await client.publish("devices/t8/temp", "1", qos=1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in held:
                os.close(descriptor)
        assert len(outcome.refused) >= 2
        assert [one.name for one in broker.addresses] == ["tls"]
        assert broker.reload().refused == ()
        await client.publish("devices/t8/temp", "1", qos=1)


def test_files_that_change_are_taken_by_themselves_where_that_is_asked_for(
    home: Path, port: int
) -> None:
    write(home, "reload_on_change = true\n" + tls(port))
    with Broker(home) as broker:
        before = shown(port)
        renew(home)
        eventually(lambda: shown(port) != before)
        write(home, "broken")
        eventually(lambda: "configuration" in broker.problems)
        write(home, tls(port))
        eventually(lambda: broker.problems == {})
        # The file says now that nobody asks for it any more.
        write(home, "broken")
        looked = read_status(home).updated_unix_s
        eventually(lambda: read_status(home).updated_unix_s > looked + 1)
        assert broker.problems == {}


async def test_a_new_password_closes_who_came_in_with_the_old_one(home: Path, port: int) -> None:
    plain = free_port()
    write(home, tls(port) + tcp(plain))
    with accounts(home) as store:
        store.add("ann", "user", ["console"], SECRET)
        store.add("bob", "user", ["console"], SECRET)
    with Broker(home, password_cost=CHEAP) as broker:

        def by_password(name: str) -> Client:
            return Client(
                "127.0.0.1", plain, tls=False, username=name, password=SECRET, reconnect=False
            )

        async with by_password("bob") as bob:
            async with by_password("ann") as ann:
                with accounts(home) as store:
                    store.set_password("ann", f"{SECRET}-and-more")
                await ends(ann)
            with pytest.raises(Refused):
                await by_password("ann").connect()
            await bob.subscribe("devices/#")
        assert broker.problems == {}


def test_a_hash_that_is_renewed_is_no_new_password(tmp_path: Path) -> None:
    path = tmp_path / identity.FILE_NAME
    with Accounts.create(path, cost=CHEAP) as store:
        store.add("ann", "user", [], SECRET)
        store.add("bob", "user")
        before = store.get("ann").password_mark
        assert before
        assert store.get("bob").password_mark == ""
    with Accounts(path, cost=PasswordCost(time=2, memory_kib=128)) as store:
        store.verify("ann", SECRET)
        store.verify("ann", SECRET)
        assert store.get("ann").password_mark == before
        store.set_password("ann", SECRET)
        assert store.get("ann").password_mark != before


def test_a_request_is_answered_with_what_came_of_it(broker: Broker, home: Path) -> None:
    renew(home)
    outcome = ask_to_reload(home, 10)
    assert outcome.changed == ("listener tls changed",)
    assert ask_to_reload(home, 10).generation == outcome.generation + 1
    write(home, "broken")
    assert ask_to_reload(home, 10).refused != ()
    assert not (home / "reload.request").exists()


def test_two_requests_at_once_are_both_answered(broker: Broker, home: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask_to_reload(home, 20), range(4)))
    assert sorted(one.generation for one in answers) == [1, 2, 3, 4]


def test_a_request_without_a_broker_says_so(home: Path) -> None:
    with pytest.raises(BrokerStopped):
        ask_to_reload(home, 5)


def test_a_request_that_nobody_reads_ends_and_is_taken_back(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casemate.broker.request.is_served", lambda _home: True)
    (home / "status.json").write_text(
        '{"version":"","pid":1,"started_unix_s":0,"updated_unix_s":0,"listeners":[],'
        '"counters":{},"problems":[],"weakenings":[]}'
    )
    monkeypatch.setattr("casemate.broker.status.is_served", lambda _home: True)
    with pytest.raises(BrokerError, match="did not answer"):
        ask_to_reload(home, 0.2)
    assert not (home / "reload.request").exists()


@pytest.mark.parametrize("left", [b"", b"rubbish", b"0" * 100, b"\xff" * 32])
def test_rubbish_in_the_place_of_a_request_is_removed(
    broker: Broker, home: Path, left: bytes
) -> None:
    (home / "reload.request").write_bytes(left)
    eventually(lambda: not (home / "reload.request").exists())
    assert broker.status().reload is None


def test_a_request_from_before_the_start_is_not_obeyed(home: Path) -> None:
    (home / "reload.request").write_bytes(b"0" * 32)
    with Broker(home) as broker:
        assert not (home / "reload.request").exists()
        assert broker.status().reload is None
