"""Hooks: who is let in, what is told, and that no hook can hold a broker or its clients up."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casemate.broker import (
    Broker,
    Connecting,
    ConnectRefused,
    Denied,
    Disconnected,
    Event,
    Missed,
    SessionChanged,
)
from casemate.broker.events import _READERS, Connected, Reading
from casemate.broker.hooks import EVENTS_WAITING_MAX
from casemate.client import Client
from casemate.errors import ConnectionLost, Refused
from casemate.home import Home
from casemate.testing import ThrowAwayBroker

ROOT = Path(__file__).resolve().parents[3]


async def until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Lets everything else run until something is true."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.005)


def until_blocking(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


async def refused(client: Client) -> int:
    with pytest.raises(Refused) as caught:
        await client.connect()
    return caught.value.reason_code


# on_connect


async def test_a_hook_hears_who_comes_before_it_is_in() -> None:
    asked: list[Connecting] = []
    broker = ThrowAwayBroker(kinds=("tls", "tcp"))

    @broker.on_connect
    async def note(client: Connecting) -> None:
        asked.append(client)
        assert broker.counters()["sessions_now"] == 0

    async with broker:
        async with broker.client("t7", role="sensor", client_id="other"):
            pass
        secret = broker.add_user("ada", "console")
        port = broker.listening("tcp").port
        by_password = Client(
            "127.0.0.1", port, tls=False, username="ada", password=secret, version=4
        )
        async with by_password:
            pass
    first, second = asked
    assert (first.name, first.client_id, first.roles) == ("t7", "other", ("sensor",))
    assert (first.listener, first.proven_by, first.version) == ("tls", "certificate", 5)
    assert first.address is not None
    assert first.address.startswith("127.0.0.1:")
    assert (second.name, second.roles, second.proven_by) == ("ada", ("console",), "password")
    assert second.version == 4


async def test_a_hook_refuses_with_its_reason_and_others_come_in() -> None:
    denied: list[Denied] = []

    async def note(event: Denied) -> None:
        denied.append(event)

    async def no_seven(client: Connecting) -> None:
        if client.name == "t7":
            raise ConnectRefused("seven is banned since Monday", reason_code=0x8A)

    async with ThrowAwayBroker(on_connect=no_seven, on_denied=note) as broker:
        async with broker.client("t8"):
            pass
        seven = broker.client("t7", role="sensor", reconnect=False)
        assert await refused(seven) == 0x8A
        await until(lambda: bool(denied))
        assert broker.counters()["hooks_refused"] == 1
    (event,) = denied
    assert (event.action, event.name, event.client_id) == ("connect", "t7", "t7")
    assert (event.reason, event.reason_code) == ("seven is banned since Monday", 0x8A)
    assert event.roles == ("sensor",)


async def test_the_first_refusal_counts_and_later_hooks_are_not_asked() -> None:
    asked: list[str] = []
    broker = ThrowAwayBroker()

    @broker.on_connect
    async def first(client: Connecting) -> None:
        asked.append("first")

    @broker.on_connect
    async def second(client: Connecting) -> None:
        raise ConnectRefused("no")

    @broker.on_connect
    async def third(client: Connecting) -> None:
        asked.append("third")

    async with broker:
        assert await refused(broker.client("a", reconnect=False)) == 0x87
    assert asked == ["first"]


@pytest.mark.parametrize("wrong", [0, 0x18, 0x7F, 0x8B, 0x9C, 0xFF, -1])
def test_a_reason_code_that_is_no_refusal_of_a_connect_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="refuses no CONNECT"):
        ConnectRefused("no", reason_code=wrong)


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("code", sorted(ConnectRefused.REASON_CODES))
async def test_every_reason_reaches_every_version_as_a_refusal(code: int, version: int) -> None:
    async def no(_: Connecting) -> None:
        raise ConnectRefused("no", reason_code=code)

    async with ThrowAwayBroker(on_connect=no) as broker:
        client = broker.client("a", reconnect=False, version=version)
        # What 3.x has no code for ends without an answer (3.1.1 §3.2.2.3).
        with pytest.raises((Refused, ConnectionLost)) as caught:
            await client.connect()
        if version == 5:
            assert isinstance(caught.value, Refused)
            assert caught.value.reason_code == code
        assert broker.counters()["sessions_now"] == 0


@pytest.mark.parametrize(
    "planted", [RuntimeError, asyncio.CancelledError, TimeoutError, SystemError]
)
async def test_a_hook_that_fails_lets_nobody_in(
    planted: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Connecting) -> None:
        raise planted("planted")

    async with ThrowAwayBroker(on_connect=fail) as broker:
        for _ in range(3):
            assert await refused(broker.client("a", reconnect=False)) == 0x88
        assert broker.counters()["sessions_now"] == 0
        assert broker.counters()["hooks_failed"] == 3
    # The first, the second, the fourth: a hook that always fails fills no disk.
    assert sum("on_connect" in one.message for one in caplog.records) == 2


async def test_a_hook_that_hangs_lets_nobody_in_and_holds_nobody() -> None:
    """Goal: a client waits for its own hook only. Method: the hook hangs for one of two."""
    ended = asyncio.Event()

    async def hang(client: Connecting) -> None:
        if client.name == "a":
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with ThrowAwayBroker(on_connect=hang, hook_timeout_s=0.5) as broker:
        hanging = asyncio.create_task(refused(broker.client("a", reconnect=False)))
        async with broker.client("b") as other:
            await other.publish("lab/a", qos=1)
        assert await hanging == 0x88
        await asyncio.wait_for(ended.wait(), 10)
        assert broker.counters()["hooks_late"] == 1


def test_a_hook_that_blocks_its_loop_lets_nobody_in() -> None:
    """Goal: the limit holds though no timer of the loop runs. Method: the hook blocks the loop."""
    over = threading.Event()

    async def block(_: Connecting) -> None:
        over.wait(30)

    with ThrowAwayBroker(on_connect=block, hook_timeout_s=0.3) as broker:
        try:
            with pytest.raises(Refused) as caught:
                broker.client("a", reconnect=False).blocking().connect()
        finally:
            over.set()
        assert caught.value.reason_code == 0x88


async def test_more_hooks_than_may_be_asked_wait_and_come_in() -> None:
    """Goal: what is asked at a time is bounded, and nobody is forgotten. Method: few at a time."""
    running = most = 0

    async def slow(_: Connecting) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    async with ThrowAwayBroker(on_connect=slow) as broker:
        broker.identity("a")
        clients = [broker.client("a", client_id=f"c{number}") for number in range(40)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("casemate.broker.admissions.ASKED_AT_ONCE_MAX", 4)
            await asyncio.gather(*(client.connect() for client in clients))
        await asyncio.gather(*(client.close() for client in clients))
        assert most <= 4
        assert broker.counters()["admissions"] == 40


async def test_one_hook_that_hangs_makes_nothing_pile_up_behind_it() -> None:
    async def hang(client: Connecting) -> None:
        if client.name == "a":
            await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("casemate.broker.admissions.ASKED_AT_ONCE_MAX", 4)
        async with ThrowAwayBroker(on_connect=hang, hook_timeout_s=30) as broker:
            hanging = asyncio.create_task(broker.client("a", reconnect=False).connect())
            await until(lambda: broker.counters()["admissions_now"] == 1)
            for number in range(40):
                async with broker.client("b", client_id=f"c{number}"):
                    pass
            assert broker._serving is not None
            assert broker._serving._admissions is not None
            assert len(broker._serving._admissions._due) <= 9
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            broker._hooks.connect.clear()
            for task in list(broker._serving._loop._tasks):
                task.cancel()


async def test_a_hook_added_while_it_runs_is_asked_about_those_who_come_then() -> None:
    async with Broker() as broker, broker.client("a") as first:

        @broker.on_connect
        async def no(_: Connecting) -> None:
            raise ConnectRefused("closed")

        await first.publish("still/in", qos=1)
        assert await refused(broker.client("b", reconnect=False)) == 0x87
        await first.publish("still/in", qos=1)


async def test_programs_inside_are_not_asked_about() -> None:
    async def no(_: Connecting) -> None:
        raise ConnectRefused("closed")

    async with ThrowAwayBroker(on_connect=no) as broker:
        # In the loop of the hooks: asking would wait for itself.
        with broker.publisher() as publisher:
            publisher.publish_now([("a", b"x", 1)])


async def test_a_wrong_password_is_refused_unasked() -> None:
    asked: list[Connecting] = []

    async def note(client: Connecting) -> None:
        asked.append(client)

    async with ThrowAwayBroker(kinds=("tcp",), on_connect=note) as broker:
        port = broker.listening("tcp").port
        client = Client(
            "127.0.0.1", port, tls=False, username="ada", password="wrong", reconnect=False
        )
        assert await refused(client) == 0x86
    assert asked == []


@pytest.mark.parametrize("wrong", [lambda _: None, print, 3, time.sleep])
def test_what_is_no_async_def_is_no_hook(wrong: Any) -> None:  # noqa: ANN401 - anything.
    for name in ("on_connect", "on_disconnect", "on_session", "on_denied", "on_event"):
        with pytest.raises(TypeError, match="async def"):
            Broker(**{name: wrong})
        with pytest.raises(TypeError, match="async def"):
            getattr(Broker(), name)(wrong)


def test_an_object_with_an_async_call_is_a_hook() -> None:
    class Gate:
        async def __call__(self, client: Connecting) -> None:
            raise ConnectRefused("no")

    with ThrowAwayBroker(on_connect=Gate()) as broker, pytest.raises(Refused):
        broker.client("a", reconnect=False).blocking().connect()


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan")])
def test_a_time_limit_is_above_zero(wrong: float) -> None:
    with pytest.raises(ValueError, match="hook_timeout_s"):
        Broker(hook_timeout_s=wrong)


# Hooks that are told


async def test_hooks_run_in_the_loop_that_has_entered_and_hear_in_order() -> None:
    heard: list[Event] = []
    threads: set[int] = set()

    async def note(event: Event) -> None:
        threads.add(threading.get_ident())
        await asyncio.sleep(0)
        heard.append(event)

    async with ThrowAwayBroker(on_event=note) as broker:
        for number in range(20):
            async with broker.client("a", client_id=f"c{number}"):
                pass
    assert threads == {threading.get_ident()}
    ids = [one.client_id for one in heard if isinstance(one, Connected)]
    assert ids == [f"c{number}" for number in range(20)]
    times = [one.time_unix_ms for one in heard]
    assert times == sorted(times)


def test_hooks_run_in_a_thread_of_the_brokers_own_without_a_loop() -> None:
    names: set[str] = set()

    async def note(_: Event) -> None:
        names.add(threading.current_thread().name)

    with ThrowAwayBroker(on_event=note) as broker, broker.client("a").blocking():
        pass
    assert names == {"casemate-hooks"}
    assert not any(one.name == "casemate-hooks" for one in threading.enumerate())


async def test_the_end_of_a_connection_says_why() -> None:
    ends: dict[str, Disconnected] = {}

    async def note(event: Disconnected) -> None:
        ends[event.client_id] = event

    async with ThrowAwayBroker(on_disconnect=note) as broker:
        async with broker.client("polite"):
            pass
        first = broker.client("twice", reconnect=False)
        await first.connect()
        async with broker.client("twice"):
            await until(lambda: "twice" in ends)
            assert (ends["twice"].cause, ends["twice"].name) == ("taken-over", "twice")
        gone = broker.client("removed", reconnect=False)
        await gone.connect()
        Home.open(broker.home).remove_device("removed")
        broker.reload()
        await until(lambda: "removed" in ends)
        staying = broker.client("staying", reconnect=False)
        await staying.connect()
    assert ends["polite"].cause == "goodbye"
    assert ends["polite"].reason_code is None
    assert ends["removed"].cause == "refused"
    assert ends["removed"].reason_code in (0x87, 0x98)
    assert ends["staying"].cause in ("stopping", "refused")


async def test_what_becomes_of_a_session_is_told() -> None:
    changes: list[tuple[str, str]] = []

    async def note(event: SessionChanged) -> None:
        changes.append((event.client_id, event.change))

    async with ThrowAwayBroker(on_session=note) as broker:
        options: dict[str, Any] = {"clean_start": False, "session_expiry_s": 1}
        async with broker.client("a", **options):
            pass
        async with broker.client("a", **options):
            first = broker.client("a", reconnect=False, **options)
            await first.connect()
            await first.close()
        await until(lambda: ("a", "expired") in changes)
    assert changes[:4] == [("a", "made"), ("a", "resumed"), ("a", "taken-over"), ("a", "resumed")]
    assert changes[-1] == ("a", "expired")


async def test_who_was_denied_what_and_why_is_told() -> None:
    denied: list[Denied] = []

    async def note(event: Denied) -> None:
        denied.append(event)

    async with (
        ThrowAwayBroker(on_denied=note) as broker,
        broker.client("t7", role="sensor") as sensor,
    ):
        for topic in ("devices/t8/temp", "$SYS/broker/version"):
            with pytest.raises(Refused):
                await sensor.publish(topic, "1", qos=1)
        with pytest.raises(Refused):
            await sensor.subscribe("#")
        await until(lambda: len(denied) >= 3)
    publish, sys, subscribe = denied
    assert (publish.action, publish.topic, publish.name) == ("publish", "devices/t8/temp", "t7")
    assert publish.reason == 'no rule of role "sensor" allows it'
    assert publish.roles == ("sensor",)
    assert sys.reason == "the broker alone publishes below $SYS/"
    assert (subscribe.action, subscribe.topic) == ("subscribe", "#")
    assert all(one.reason_code == 0x87 and one.count == 1 for one in denied)


@pytest.mark.parametrize("fault", ["raises", "hangs", "cancels"])
async def test_a_hook_that_fails_or_hangs_keeps_only_itself_waiting(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    good: list[str] = []

    async def bad(_: Event) -> None:
        if fault == "hangs":
            await asyncio.Event().wait()
        raise asyncio.CancelledError if fault == "cancels" else RuntimeError("planted")

    broker = ThrowAwayBroker(on_session=bad, hook_timeout_s=0.1)

    @broker.on_session
    async def note(event: SessionChanged) -> None:
        good.append(event.client_id)

    async with broker:
        for name in ("a", "b", "c"):
            async with broker.client("x", client_id=name):
                pass
        await until(lambda: len(good) == 3)
        name = "hooks_late" if fault == "hangs" else "hooks_failed"
        await until(lambda: broker.counters()[name] == 3)
    assert good == ["a", "b", "c"]
    assert [one.levelno for one in caplog.records if "bad" in one.message] == [logging.ERROR] * 2


async def test_a_stop_waits_for_hooks_no_longer_than_their_limit() -> None:
    """Goal: a backlog of a hook that hangs does not hold the end. Method: many events for it."""

    async def hang(_: Event) -> None:
        await asyncio.Event().wait()

    async with ThrowAwayBroker(on_event=hang, hook_timeout_s=0.2) as broker:
        for number in range(20):
            async with broker.client("a", client_id=f"c{number}"):
                pass
    assert broker._hooks.tally.snapshot()["hooks_missed"] > 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_hook_that_hung_at_the_end_hears_of_the_next_start() -> None:
    heard: list[str] = []
    hangs = True

    async def note(event: SessionChanged) -> None:
        if hangs:
            await asyncio.Event().wait()
        heard.append(event.client_id)

    broker = Broker(on_session=note, hook_timeout_s=0.2)
    for name in ("first", "second"):
        async with broker, broker.client("a", client_id=name):
            pass
        hangs = False
    assert heard == ["second"]


async def test_a_hook_may_stop_its_broker() -> None:
    """Goal: a hook that waits for the end that waits for it is no deadlock: its time limit ends it.

    Method: the hook stops the broker and waits for that.
    """
    ended: list[str] = []
    broker = ThrowAwayBroker(hook_timeout_s=0.3)

    @broker.on_session
    async def end(_: SessionChanged) -> None:
        try:
            await asyncio.to_thread(broker.stop)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with broker:
        client = broker.client("a", reconnect=False)
        await client.connect()
        await until(lambda: not broker.is_running)
    assert ended == ["cancelled"]


# What is bounded, and every kind


def session(name: str) -> SessionChanged:
    return SessionChanged(
        time_unix_ms=0, listener=None, address=None, client_id=name, name=name, change="made"
    )


async def test_a_hook_that_is_too_slow_is_told_what_it_missed() -> None:
    """Goal: more events than wait for a hook are counted, none silently gone."""
    go = asyncio.Event()
    heard: list[Event] = []

    async def slow(event: Event) -> None:
        await go.wait()
        heard.append(event)

    count = EVENTS_WAITING_MAX + 500
    async with ThrowAwayBroker(on_event=slow, hook_timeout_s=30) as broker:
        told = broker._hooks._told[0]
        assert broker._serving is not None
        told.tell([session(str(one)) for one in range(count)], 0, broker._serving._loop, 30)
        go.set()
        await until(lambda: bool(heard) and isinstance(heard[-1], Missed))
        assert broker.counters()["hooks_missed"] > 0
    seen = sum(one.count if isinstance(one, Missed) else 1 for one in heard)
    assert seen >= count


def test_every_kind_that_the_engine_tells_has_its_event() -> None:
    """Goal: an event that the engine learns is not forgotten here. Method: its source."""
    source = (ROOT / "crates" / "python" / "src" / "report.rs").read_text(encoding="utf-8")
    describing = source.partition("fn describe(")[2].partition("/// Writes the named")[0]
    kinds = {
        word
        for line in describing.splitlines()
        if "=>" in line or line.strip().startswith(("(", '("'))
        for word in line.split('"')[1:2]
        if word and word not in ("resumed",)
    }
    assert {"connected", "empty-records", "authentication-refused"} <= kinds
    assert kinds == set(_READERS)


def test_who_has_no_roles_is_denied_for_want_of_any_rule() -> None:
    class Told:
        time_unix_ms, listener, address = 1, "tls", "192.0.2.1:1"
        client_id, principal, kind = "c", "x", "will-denied"
        detail, reason, shard = "a/b", None, 0

    (event,) = Reading(lambda _: ()).read([Told()])  # type: ignore[list-item]
    assert isinstance(event, Denied)
    assert (event.action, event.topic, event.reason) == ("will", "a/b", "no rule allows it")
