"""A broker wherever it is embedded: threads, loops, interrupts, cancellation, start upon start."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import uvicorn
import uvloop
from fastapi import FastAPI

from casemate.broker import Broker, Connecting, SessionChanged
from casemate.broker.blocking import BlockingBroker
from casemate.broker.uninterrupted import finish, finish_async
from casemate.errors import BrokerStopped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Has everything that is temporary made in one folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def is_clean(broker: Broker, folder: Path) -> bool:
    """Says whether nothing runs and nothing lies about."""
    return not broker.is_running and not list(folder.iterdir())


def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


def use(broker: BlockingBroker) -> None:
    with broker.client("a") as client, broker.subscriber("a/#", name="s") as subscriber:
        client.publish("a/b", "hello", qos=1)
        assert next(iter(subscriber)).payload == b"hello"


# Without an event loop


def test_without_an_event_loop_everything_is_for_with_and_for() -> None:
    with Broker.blocking() as broker:
        use(broker)
        assert broker.is_running
        assert broker.status().pid == os.getpid()
        assert broker.addresses[0].port > 0
        broker.check()
        with broker.publisher() as publisher, broker.subscriber(("x", 1), batch_max=3) as one:
            publisher.publish_now([("x", str(number).encode(), 1) for number in range(7)])
            taken: list[bytes] = []
            for batch in one.batches:
                assert 1 <= len(batch) <= 3
                taken += [message.payload for message in batch]
                if len(taken) == 7:
                    break
        assert taken == [str(number).encode() for number in range(7)]
    assert not broker.is_running
    with pytest.raises(BrokerStopped):
        broker.client("a")


def test_a_subscriber_that_waits_ends_by_close_and_by_the_end_of_the_broker() -> None:
    outcomes: list[object] = []

    def read(subscriber: Any) -> None:  # noqa: ANN401 - a blocking subscriber.
        try:
            outcomes.append(list(subscriber))
        except BrokerStopped as error:
            outcomes.append(type(error))

    with Broker.blocking() as broker:
        closed, ended = broker.subscriber("a"), broker.subscriber("a")
        waiting = [threading.Thread(target=read, args=(one,)) for one in (closed, ended)]
        for one in waiting:
            one.start()
        closed.close()
        waiting[0].join(20)
        assert outcomes == [[]]
    waiting[1].join(20)
    assert outcomes[1:] == [BrokerStopped]


def test_hooks_of_a_blocking_broker_run_in_its_own_loop() -> None:
    seen: list[str] = []

    async def note(client: Connecting) -> None:
        seen.append(client.name)

    with Broker.blocking(on_connect=note) as broker:
        use(broker)
    assert seen == ["a"]


# Threads, loops, one beside the other


def test_a_broker_is_started_used_and_stopped_in_different_threads() -> None:
    broker = Broker()
    for work in (broker.start, lambda: use(BlockingBroker(broker)), broker.stop):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert not broker.is_running


def test_many_threads_stop_a_broker_at_once() -> None:
    broker = Broker()
    broker.start()
    stopping = [threading.Thread(target=broker.stop) for _ in range(8)]
    for one in stopping:
        one.start()
    for one in stopping:
        one.join(30)
    assert not broker.is_running
    broker.start()
    assert broker.stop()


async def test_two_brokers_in_one_process_know_nothing_of_each_other() -> None:
    async with Broker() as one, Broker() as other:
        assert one.addresses[0].port != other.addresses[0].port
        async with one.client("a") as ours, other.client("a") as theirs:
            await ours.subscribe("#")
            await theirs.publish("a", "theirs", qos=1)
            await ours.publish("a", "ours", qos=1)
            assert (await anext(ours.messages)).text == "ours"
    async with one:
        with pytest.raises(BrokerStopped):
            other.check()


def test_a_broker_runs_in_uvloop() -> None:
    loops: set[str] = set()

    async def note(_: SessionChanged) -> None:
        loops.add(type(asyncio.get_running_loop()).__module__)

    async def live() -> None:
        async with Broker(on_session=note) as broker, broker.subscriber("a") as subscriber:
            stream = broker.events(SessionChanged)
            async with broker.client("a") as client:
                await client.publish("a", "hello", qos=1)
            assert (await anext(aiter(subscriber))).payload == b"hello"
            assert isinstance(await anext(stream), SessionChanged)

    uvloop.run(live())
    assert loops == {"uvloop"}


async def test_a_broker_lives_with_an_application_of_fastapi() -> None:
    """Goal: started by the lifespan, in the server's loop, and gone with it. Method: uvicorn."""
    asked: list[tuple[str, int]] = []
    broker = Broker()

    @broker.on_connect
    async def note(client: Connecting) -> None:
        asked.append((client.name, threading.get_ident()))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with broker, broker.client("app") as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root() -> dict[str, int]:
        await app.state.client.publish("asked", qos=1)
        return {"connections": broker.counters()["connections_now"]}

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    serving = asyncio.create_task(server.serve())
    await asyncio.to_thread(until, lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200")
    assert asked == [("app", threading.get_ident())]
    server.should_exit = True
    await asyncio.wait_for(serving, 30)
    assert not broker.is_running


# Start upon start


def test_fifty_starts_leave_no_descriptor_no_thread_and_no_file(folder: Path) -> None:
    async def note(_: Any) -> None:  # noqa: ANN401 - any event.
        await asyncio.sleep(0)

    broker = Broker(on_connect=note, on_event=note)

    def once() -> None:
        with broker:
            broker.publisher().close()

    once()
    gc.collect()
    before = descriptors(), threads()
    for _ in range(50):
        once()
    gc.collect()
    # A thread that has been joined may still be on its way out of the kernel's list.
    until(lambda: threads() <= before[1])
    assert descriptors() <= before[0]
    assert is_clean(broker, folder)


async def test_fifty_starts_in_a_loop_leave_nothing_there(folder: Path) -> None:
    async with Broker() as broker:
        pass
    before = descriptors()
    for _ in range(50):
        async with broker:
            stream = broker.events()
        assert [event async for event in stream] == []
    assert descriptors() <= before
    assert len(asyncio.all_tasks()) == 1
    assert is_clean(broker, folder)


# Ctrl-C


@contextmanager
def interrupted_at(line: int) -> Iterator[list[int]]:
    """Raises KeyboardInterrupt in this thread at the nth line of the broker's own code."""
    seen = [0]

    def trace(frame: FrameType, what: str, _: object) -> Any:  # noqa: ANN401 - a trace function.
        if "casemate/broker/" not in frame.f_code.co_filename:
            return None
        if what == "line":
            seen[0] += 1
            if seen[0] == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(None)


@pytest.mark.parametrize("method", ["start", "stop"])
def test_an_interrupt_at_each_line_leaves_a_broker_that_can_be_stopped(
    folder: Path, method: str
) -> None:
    """Goal: wherever Ctrl-C comes, nothing is half-done. Method: at each line of the main thread.

    The rest of the work is done in another thread, which no signal interrupts.
    """
    broker = Broker(sys_interval_s=0)
    with broker:
        pass
    before = descriptors()
    line = interrupted = 0
    while True:
        line += 1
        if method == "stop":
            broker.start()
        reached = False
        try:
            with interrupted_at(line) as seen:
                broker.start() if method == "start" else broker.stop()
        except KeyboardInterrupt:
            interrupted += 1
        else:
            reached = seen[0] < line
        broker.stop()
        assert is_clean(broker, folder)
        assert descriptors() <= before
        if reached:
            break
    assert interrupted >= 10


def test_a_signal_at_each_moment_leaves_nothing(folder: Path) -> None:
    """Goal: the same with real signals. Method: a timer that interrupts ever later."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    broker = Broker(sys_interval_s=0)
    try:
        for step in range(40):
            signal.setitimer(signal.ITIMER_REAL, 0.001 + step * 0.003)
            try:
                try:
                    broker.start()
                finally:
                    broker.stop()
            except KeyboardInterrupt:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            broker.stop()
            assert is_clean(broker, folder)
    finally:
        signal.signal(signal.SIGALRM, former)


def test_an_interrupt_cuts_a_drain_short() -> None:
    """Goal: Ctrl-C does not wait for promises. Method: a client that takes nothing it is owed."""
    main = threading.get_ident()
    broker = Broker()

    def interrupt_the_drain() -> None:
        until(lambda: broker._serving is not None and broker._serving._ending is not None)
        signal.pthread_kill(main, signal.SIGINT)

    blocking = BlockingBroker(broker)
    with blocking, blocking.publisher() as publisher, blocking.subscriber(("a", 1)):
        publisher.publish_now([("a", b"x" * 1_000, 1) for _ in range(1_000)])
        interrupting = threading.Thread(target=interrupt_the_drain)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            broker.stop(deadline_s=3_600)
        interrupting.join()
    assert not broker.is_running


# Cancellation


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 10])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_start_leaves_nothing(folder: Path, steps: int, times: int) -> None:
    broker = Broker()
    starting = asyncio.create_task(broker.__aenter__())
    for _ in range(steps):
        await asyncio.sleep(0)
    for _ in range(times):
        starting.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert is_clean(broker, folder)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 10])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_stop_has_stopped(folder: Path, steps: int, times: int) -> None:
    broker = Broker()
    await broker.__aenter__()
    stopping = asyncio.create_task(broker.__aexit__(None, None, None))
    for _ in range(steps):
        await asyncio.sleep(0)
    for _ in range(times):
        stopping.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await stopping
    if steps == 0:
        # Cancelled before its first step: nobody has asked for the end yet.
        await broker.__aexit__(None, None, None)
    assert is_clean(broker, folder)


async def test_a_time_limit_around_a_broker_ends_it(folder: Path) -> None:
    broker = Broker()

    async def live() -> None:
        async with asyncio.timeout(0.001), broker:
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await live()
    assert is_clean(broker, folder)


async def test_cancelled_readers_and_subscribers_end_and_the_broker_goes_on() -> None:
    async with Broker() as broker, broker.subscriber("a") as subscriber:

        async def read() -> None:
            async for _ in broker.events():
                continue

        async def hear() -> None:
            async for _ in subscriber:
                continue

        for work in (read, hear):
            waiting = asyncio.create_task(work())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        broker.check()
        with broker.publisher() as publisher:
            publisher.publish_now([("a", b"x", 1)])
        assert (await anext(aiter(subscriber))).payload == b"x"


def test_work_that_fails_says_so_though_it_was_interrupted_or_not() -> None:
    def fail() -> None:
        raise OSError("planted")

    with pytest.raises(OSError, match="planted"):
        finish(fail, hurry=lambda: None)
    with pytest.raises(OSError, match="planted"):
        asyncio.run(finish_async(fail, hurry=lambda: None))


async def test_a_failed_start_that_was_cancelled_is_not_undone_twice() -> None:
    undone: list[int] = []
    go = threading.Event()

    def fail() -> None:
        go.wait()
        raise OSError("planted")

    task = asyncio.create_task(finish_async(fail, hurry=go.set, undo=lambda: undone.append(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == []
