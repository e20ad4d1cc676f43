"""The broker: starts and stops in order, takes changes live, and fails closed.

Each test runs the real engine on loopback; changes are made as an operator makes them, on disk.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate import config, identity, policy
from casemate.broker import Broker, is_served, read_status
from casemate.client import Client
from casemate.config import Configuration, Limits, Listener
from casemate.errors import (
    BrokerError,
    BrokerStopped,
    ClientError,
    HomeError,
    PolicyError,
    PortInUse,
    Refused,
)
from casemate.home import Home
from casemate.identity import Accounts
from casemate.passwords import PasswordCost

CHEAP = PasswordCost(time=1, memory_kib=64)
SECRET = "correct-horse-battery-staple-7"

LISTENERS = (
    Listener(kind="tcp", host="127.0.0.1", port=0),
    Listener(kind="tls", host="127.0.0.1", port=0),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    Home.init(folder)
    return folder


def serving(home: Path, **options: Any) -> Broker:  # noqa: ANN401 - as for Broker.
    limits = options.pop("limits", Limits())
    configuration = Configuration(listeners=LISTENERS, limits=limits).in_home(home)
    return Broker(home, configuration=configuration, password_cost=CHEAP, **options)


@pytest.fixture
def broker(home: Path) -> Iterator[Broker]:
    with serving(home) as one:
        yield one


def accounts(home: Path) -> Accounts:
    return Accounts(home / identity.FILE_NAME, cost=CHEAP)


def by_password(broker: Broker, name: str, secret: str, **options: Any) -> Client:  # noqa: ANN401
    port = next(one.port for one in broker.addresses if one.kind == "tcp")
    options = {"reconnect": False, **options}
    return Client("127.0.0.1", port, tls=False, username=name, password=secret, **options)


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


def damage(file: Path) -> None:
    """Makes a database unreadable, with the files that stand beside it."""
    file.write_bytes(b"no database" * 1_000)
    for side in file.parent.glob(f"{file.name}-*"):
        side.unlink()


async def ends(client: Client, within_s: float = 5.0) -> ClientError:
    """Waits until the broker has closed a client's connection; gives the error."""
    try:
        async with asyncio.timeout(within_s):
            async for _ in client.messages:
                continue
    except ClientError as error:
        return error
    pytest.fail("the client was closed by nobody but itself")


def test_a_throw_away_broker_listens_on_loopback_with_tls_and_leaves_nothing() -> None:
    with Broker() as one:
        folder = one.home
        assert [(listening.kind, listening.host) for listening in one.addresses] == [
            ("tls", "127.0.0.1")
        ]
        assert folder.is_dir()
        assert folder.parent.stat().st_mode & 0o077 == 0
    assert not folder.parent.exists()
    with pytest.raises(BrokerStopped):
        _ = one.addresses


async def test_it_works_inside_an_event_loop() -> None:
    async with Broker() as one, one.client("probe") as client:
        await client.subscribe("lab/+/temp")
        await client.publish("lab/1/temp", "21.5")
        async with asyncio.timeout(5):
            assert (await anext(client.messages)).text == "21.5"
    assert not client.is_connected


def test_start_and_stop_can_be_repeated(home: Path) -> None:
    one = serving(home)
    for _ in range(3):
        one.start()
        with pytest.raises(BrokerError, match="runs already"):
            one.start()
        assert one.stop()
        assert one.stop()


def test_a_home_has_one_broker(broker: Broker, home: Path) -> None:
    with pytest.raises(BrokerError, match=r"serves .* already"):
        serving(home).start()
    assert is_served(home)
    broker.stop()
    assert not is_served(home)
    with serving(home):
        assert is_served(home)


def test_a_port_in_use_is_said_and_nothing_is_left(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listener = Listener(kind="tls", host="127.0.0.1", port=port)
        one = Broker(home, configuration=Configuration(listeners=(listener,)).in_home(home))
        with pytest.raises(PortInUse, match=str(port)):
            one.start()
    assert not is_served(home)
    one.start()
    one.stop()


def test_a_missing_home_is_no_empty_broker(tmp_path: Path) -> None:
    with pytest.raises(HomeError):
        Broker(tmp_path / "nowhere").start()


@pytest.mark.parametrize("text", ["", "# nothing\n", "[roles.operator]\nallow = [", "x = 1\n"])
def test_cve_2018_12550_an_empty_or_broken_policy_never_starts_open(home: Path, text: str) -> None:
    (home / policy.FILE_NAME).write_text(text)
    with pytest.raises(PolicyError):
        serving(home).start()
    assert not is_served(home)


def test_the_status_says_how_it_is_doing(broker: Broker, home: Path) -> None:
    status = read_status(home)
    assert status.pid == os.getpid()
    assert {one.kind for one in status.listeners} == {"tcp", "tls"}
    assert status.problems == ()
    assert status.counters["connections_now"] == 0
    assert (home / "status.json").stat().st_mode & 0o077 == 0
    broker.stop()
    with pytest.raises(BrokerStopped, match="no broker serves"):
        read_status(home)


def test_a_weakening_is_listed_with_its_reason(home: Path) -> None:
    open_door = Listener(kind="tcp", host="127.0.0.1", port=0, anonymous_role="sensor")
    configuration = Configuration(listeners=(open_door,)).in_home(home)
    with Broker(home, configuration=configuration) as one:
        assert one.status().weakenings == ("tcp: anonymous as sensor (on loopback)",)


async def test_a_password_proves_its_account_and_nothing_else_does(
    broker: Broker, home: Path
) -> None:
    with accounts(home) as store:
        store.add("ann", "user", ["console"], SECRET)
        store.add("bob", "user", ["console"])
    async with by_password(broker, "ann", SECRET) as client:
        await client.subscribe("devices/#")
    wrong = [("ann", "wrong"), ("ann", SECRET[:-1]), ("bob", SECRET), ("nobody", SECRET)]
    wrong += [("Ann", SECRET), ("ann/", SECRET), ("#", SECRET), ("ann", " " + SECRET)]
    for name, secret in wrong:
        with pytest.raises(Refused) as refused:
            await by_password(broker, name, secret).connect()
        assert refused.value.reason_code == 0x86, name


async def test_cve_2016_9877_a_user_name_without_a_password_proves_nothing(
    broker: Broker, home: Path
) -> None:
    with accounts(home) as store:
        store.add("ann", "user", ["console"], SECRET)
        store.add("bob", "user", ["console"])
    port = next(one.port for one in broker.addresses if one.kind == "tcp")
    for version in (4, 5):
        for name in ("ann", "bob", "nobody"):
            for secret in (None, ""):
                with pytest.raises(Refused):
                    await Client(
                        "127.0.0.1", port, tls=False, username=name, password=secret,
                        version=version, reconnect=False,
                    ).connect()  # fmt: skip


async def test_nobody_is_anonymous(broker: Broker) -> None:
    port = next(one.port for one in broker.addresses if one.kind == "tcp")
    with pytest.raises(Refused) as refused:
        await Client("127.0.0.1", port, tls=False, reconnect=False).connect()
    assert refused.value.reason_code == 0x87


async def test_a_removed_device_is_closed_within_a_second(
    broker: Broker, home: Path, tmp_path: Path
) -> None:
    opened = Home.open(home)
    opened.add_device("t7", "sensor")
    kept = tmp_path / "kept"
    shutil.copytree(home / "identities" / "t7", kept)
    broker.reload()
    async with broker.client("t7", reconnect=False) as client:
        begun = time.monotonic()
        opened.remove_device("t7")
        await ends(client)
        assert time.monotonic() - begun < 2
    # Its certificate is still valid and still signed by our authority; it proves nobody.
    with pytest.raises(Refused) as refused:
        await Client(
            "127.0.0.1",
            next(one.port for one in broker.addresses if one.kind == "tls"),
            ca_file=kept / "ca.crt",
            cert_file=kept / "client.crt",
            key_file=kept / "client.key",
            reconnect=False,
        ).connect()
    assert refused.value.reason_code == 0x87


@pytest.mark.parametrize("change", ["remove", "disable", "roles"])
async def test_a_changed_user_is_closed_and_cannot_come_back_as_before(
    broker: Broker, home: Path, change: str
) -> None:
    with accounts(home) as store:
        store.add("ann", "user", ["operator"], SECRET)
        async with by_password(broker, "ann", SECRET) as client:
            await client.subscribe("#")
            broker.reload()
            if change == "remove":
                store.remove("ann")
            elif change == "disable":
                store.disable("ann")
            else:
                store.set_roles("ann", ["sensor"])
            await ends(client)
    if change == "roles":
        async with by_password(broker, "ann", SECRET) as client:
            with pytest.raises(Refused):
                await client.subscribe("#")
    else:
        with pytest.raises(Refused):
            await by_password(broker, "ann", SECRET).connect()


async def test_an_added_device_can_connect_at_once(broker: Broker, home: Path) -> None:
    Home.open(home).add_device("t8", "sensor")
    until = time.monotonic() + 5
    while True:
        try:
            async with broker.client("t8", reconnect=False) as client:
                await client.publish("devices/t8/temp", "1", qos=1)
                return
        except Refused:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


async def test_a_narrower_policy_is_in_force_for_live_connections(
    broker: Broker, home: Path
) -> None:
    Home.open(home).add_device("t7", "sensor")
    broker.reload()
    async with broker.client("t7", reconnect=False) as client:
        await client.publish("devices/t7/temp", "1", qos=1)
        (home / policy.FILE_NAME).write_text(
            '[roles.sensor]\nallow = [{ publish = "other/%u" }]\n'
            "[roles.operator]\nallow = []\n[roles.console]\nallow = []\n"
        )
        broker.reload()
        assert "policy" not in broker.problems
        with pytest.raises(Refused):
            await client.publish("devices/t7/temp", "1", qos=1)
        await client.publish("other/t7", "1", qos=1)


@pytest.mark.parametrize("text", [None, "", "[roles.sensor]\nallow = [{ publish = 'a/#/b' }]\n"])
async def test_a_bad_policy_keeps_the_last_good_one_and_says_so(
    broker: Broker, home: Path, text: str | None
) -> None:
    file = home / policy.FILE_NAME
    good = file.read_text()
    Home.open(home).add_device("t7", "sensor")
    broker.reload()
    async with broker.client("t7", reconnect=False) as client:
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        broker.reload()
        assert "policy" in broker.problems
        eventually(lambda: read_status(home).problems != ())
        await client.publish("devices/t7/temp", "1", qos=1)
        with pytest.raises(Refused):
            await client.publish("devices/t8/temp", "1", qos=1)
        file.write_text(good)
        broker.reload()
        assert "policy" not in broker.problems
        await client.publish("devices/t7/temp", "1", qos=1)


async def test_a_store_that_cannot_answer_lets_nobody_in(broker: Broker, home: Path) -> None:
    """EMQX #17674, BifroMQ: an error of the backend must never mean yes, nor be ignored."""
    with accounts(home) as store:
        store.add("ann", "user", ["console"], SECRET)
    file = home / identity.FILE_NAME
    async with by_password(broker, "ann", SECRET):
        pass
    damage(file)
    with pytest.raises(Refused):
        await by_password(broker, "ann", SECRET).connect()
    with pytest.raises(Refused):
        await by_password(broker, "ann", "wrong").connect()
    broker.reload()
    assert "accounts" in broker.problems


async def test_a_role_that_nobody_defines_allows_nothing_and_is_told(
    broker: Broker, home: Path
) -> None:
    with accounts(home) as store:
        store.add("ann", "user", ["typo"], SECRET)
    broker.reload()
    assert "typo" in broker.problems["roles"].message
    async with by_password(broker, "ann", SECRET) as client:
        with pytest.raises(Refused):
            await client.subscribe("a")
        with pytest.raises(Refused):
            await client.publish("a", qos=1)


async def test_stopping_tells_the_clients_why(home: Path) -> None:
    one = serving(home)
    await asyncio.to_thread(one.start)
    with accounts(home) as store:
        store.add("ann", "user", ["console"], SECRET)
    async with by_password(one, "ann", SECRET) as client:
        assert await asyncio.to_thread(one.stop)
        error = await ends(client)
    assert isinstance(error, Refused)
    assert error.reason_code == 0x8B


async def test_a_storm_of_wrong_passwords_does_not_shut_out_the_right_one(
    broker: Broker, home: Path
) -> None:
    with accounts(home) as store:
        store.add("ann", "user", ["console"], SECRET)

    async def guess(number: int) -> None:
        with pytest.raises(Refused):
            await by_password(broker, "ann", f"guess-{number}").connect()

    await asyncio.gather(*(guess(number) for number in range(100)))
    async with by_password(broker, "ann", SECRET):
        pass
    assert broker.counters()["authentication_refused"] >= 100


async def test_refusals_are_events(home: Path) -> None:
    seen: list[str] = []
    with serving(home, raw_events=lambda event: seen.append(event.kind)) as one:
        with pytest.raises(Refused):
            await by_password(one, "nobody", "nothing").connect()
        eventually(lambda: "authentication-refused" in seen)
        assert any(event.kind == "authentication-refused" for event in one.recent_events)


async def test_a_listener_for_events_that_fails_harms_nobody(home: Path) -> None:
    def fail(_event: object) -> None:
        raise RuntimeError("planted")

    with accounts(home) as store:
        store.add("ann", "user", ["console"], SECRET)
    with serving(home, raw_events=fail) as one:
        for _ in range(2):
            async with by_password(one, "ann", SECRET):
                pass
        one.check()


def test_limits_of_the_configuration_reach_the_engine(home: Path) -> None:
    limits = Limits(receive_max=7, packet_bytes_max=4_096, keep_alive_s_max=33)

    async def look(one: Broker) -> None:
        async with one.client("probe", keep_alive_s=600) as client:
            assert client.limits.receive_max == 7
            assert client.limits.packet_bytes_max == 4_096
            assert client.limits.keep_alive_s == 33

    Home.open(home).add_device("probe", "operator")
    with serving(home, limits=limits) as one:
        asyncio.run(look(one))


@pytest.mark.parametrize("name", list(Limits.model_fields))
def test_cve_2026_42209_the_least_and_the_most_of_each_limit_starts(home: Path, name: str) -> None:
    field = Limits.model_fields[name]
    bounds = [
        getattr(one, side) for one in field.metadata for side in ("ge", "le") if hasattr(one, side)
    ]
    for bound in bounds:
        values = {name: bound}
        if name == "packet_bytes_max":
            values |= {"queue_bytes_max": 2**40, "retained_bytes_max": 2**40}
        elif name == "queue_bytes_max":
            values |= {"packet_bytes_max": 128}
        elif name == "retained_bytes_max":
            values |= {"packet_bytes_max": 128, "retained_max": 0}
        elif name in ("sessions_max", "connections_max"):
            values |= {"sessions_max": max(bound, 1), "connections_max": min(bound, 1_000_000)}
        with serving(home, limits=Limits(**values)) as one:
            one.check()


def test_a_forked_childs_broker_is_dead(broker: Broker) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            broker.addresses  # noqa: B018 - whether it raises is the question.
            os.write(write, b"alive")
        except BrokerStopped:
            os.write(write, b"dead")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 100) == b"dead"
    os.close(read)
    broker.check()


def test_the_default_configuration_is_one_that_the_broker_serves(home: Path) -> None:
    read = config.load(home)
    loopback = tuple(
        one.model_copy(update={"host": "127.0.0.1", "port": 0}) for one in read.listeners
    )
    with Broker(home, configuration=read.model_copy(update={"listeners": loopback})) as one:
        assert one.status().weakenings == ()
