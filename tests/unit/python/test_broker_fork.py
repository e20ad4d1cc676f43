"""A forked child's broker is dead: no listener, no connection, no lock, and no harm to the parent.

Each child says what it found by its exit code or a pipe, and never returns into pytest.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from casemate.broker import Broker, is_served
from casemate.broker.blocking import BlockingBroker
from casemate.errors import BrokerError, BrokerStopped
from casemate.testing import ThrowAwayBroker

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker(kinds=("tls", "tcp", "unix")) as one:
        yield one


def in_child(work: Callable[[], None]) -> None:
    """Runs something in a forked child; what goes wrong there fails here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work()
            # As an interpreter that ends: nothing that is dropped may wait for anybody.
            gc.collect()
        except BaseException:  # noqa: BLE001 - told to the parent.
            os.write(writer, traceback.format_exc().encode()[-4_000:])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        said = b""
        while chunk := os.read(reader, 65_536):
            said += chunk
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    assert said == b"", said.decode()


def own_sockets() -> list[object]:
    """Lists the local addresses of all sockets of this process."""
    found: list[object] = []
    for name in Path("/proc/self/fd").iterdir():
        try:
            one = socket.socket(fileno=int(name.name))
        except OSError:
            continue
        try:
            found.append(one.getsockname())
        except OSError:
            pass
        finally:
            one.detach()
    return found


def test_everything_of_a_childs_broker_says_that_it_is_dead(broker: ThrowAwayBroker) -> None:
    stream = broker.events()

    def look() -> None:
        for ask in (
            lambda: broker.addresses,
            broker.counters,
            broker.status,
            broker.check,
            broker.reload,
            broker.events,
            broker.publisher,
            lambda: broker.subscriber("#"),
            lambda: broker.client("a"),
            lambda: broker.makes_progress(1),
        ):
            with pytest.raises(BrokerStopped):
                ask()
        with pytest.raises(BrokerError, match="belongs to the process"):
            broker.start()
        assert not broker.is_running
        assert broker.stop() is False
        broker.cut()

    in_child(look)
    broker.check()
    assert stream is not None


def test_a_child_holds_no_listener_and_no_connection(broker: ThrowAwayBroker) -> None:
    places = {(one.host, one.port) for one in broker.addresses if one.port}
    path = next(one.path for one in broker.addresses if one.kind == "unix")
    with broker.client("a").blocking() as client, socket.create_server(("127.0.0.1", 0)) as other:
        assert len([one for one in own_sockets() if one in places]) == 3

        def look() -> None:
            found = own_sockets()
            assert not [one for one in found if one in places or one == path]
            assert other.getsockname() in found, "what is not the broker's stays"

        in_child(look)
        client.publish("a", qos=1)
        assert Path(path).exists()


def test_a_child_keeps_no_port_of_a_parent_that_stops() -> None:
    """Goal: the port is free when the broker has stopped. Method: the child lives on meanwhile."""
    one = Broker()
    one.start()
    at = one.addresses[0]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        one.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((at.host, at.port))
        # Without sharing it: whoever else held the port would be in the way.
        with socket.socket() as again:
            again.bind((at.host, at.port))
            again.listen()
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def test_clients_hear_of_a_cut_though_a_child_lives(broker: ThrowAwayBroker) -> None:
    with socket.create_connection(("127.0.0.1", broker.listening("tcp").port)) as peer:
        peer.settimeout(20)
        peer.send(b"\x10\x10")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        try:
            broker.stop(deadline_s=0)
            assert peer.recv(100) == b""
        finally:
            os.close(writer)
            os.waitpid(child, 0)


def test_a_child_holds_no_claim_on_the_home(broker: ThrowAwayBroker, tmp_path: Path) -> None:
    home = broker.home

    def look() -> None:
        assert is_served(home), "the parent serves it still"

    in_child(look)
    assert is_served(home)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        broker.stop()
        assert not is_served(home)
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def test_a_child_holds_no_lock_that_another_thread_held(broker: ThrowAwayBroker) -> None:
    """Goal: nothing waits for a thread that is not there. Method: it holds every lock at the fork.

    The child ends by itself, as its broker is dropped and the interpreter ends.
    """
    stream = broker.events()
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with (
            broker._lock,
            broker._streams._lock,
            stream._backlog._changed,
            broker._hooks.tally._lock,
        ):
            held.set()
            over.wait()

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait()

    def look() -> None:
        assert broker.stop() is False
        with pytest.raises(BrokerStopped):
            broker.events()

        async def read() -> None:
            assert [event async for event in stream] == []

        asyncio.run(read())

    try:
        in_child(look)
    finally:
        over.set()
        holding.join()
    broker.check()


def test_programs_inside_are_dead_in_a_child_and_live_on_in_the_parent(
    broker: ThrowAwayBroker,
) -> None:
    publisher = broker.publisher()
    subscriber = BlockingBroker(broker).subscriber(("a", 1))

    def look() -> None:
        with pytest.raises(BrokerStopped, match="process"):
            publisher.publish_now([("a", b"of the child")])
        with pytest.raises(BrokerStopped, match="process"):
            next(iter(subscriber))
        publisher.close()
        subscriber.close()

    in_child(look)
    publisher.publish_now([("a", b"of the parent", 1)])
    assert next(iter(subscriber)).payload == b"of the parent"
    publisher.close()
    subscriber.close()


def test_a_child_may_make_a_broker_of_its_own(broker: ThrowAwayBroker) -> None:
    before = Broker()

    def look() -> None:
        for one in (before, Broker()):
            with one, one.client("a").blocking() as client:
                client.publish("a", qos=1)

    in_child(look)
    with before:
        before.check()


def _says_that_it_is_dead(broker: Broker) -> None:
    try:
        broker.check()
    except BrokerStopped:
        sys.exit(7)


def test_a_child_of_multiprocessing_is_dead_and_ends(broker: ThrowAwayBroker) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_says_that_it_is_dead, args=(broker,)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 7
    broker.check()


def test_a_program_that_is_started_inherits_nothing(broker: ThrowAwayBroker) -> None:
    """Goal: everything of a broker is closed on exec. Method: a program that lists its sockets."""
    program = (
        "import os\n"
        "for one in os.listdir('/proc/self/fd'):\n"
        "    try: print(os.readlink(f'/proc/self/fd/{one}'))\n"
        "    except OSError: pass\n"
    )
    with broker.client("a").blocking(), broker.publisher():
        said = subprocess.run(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            close_fds=False,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "socket:" not in said.stdout
    assert "eventpoll" not in said.stdout


def test_a_child_that_ends_in_order_ends_nothing_of_its_parent() -> None:
    """Goal: neither atexit nor what is dropped at the end touches the parent's broker."""
    program = (
        "import os, sys\n"
        "from casemate import Broker\n"
        "broker = Broker()\n"
        "broker.start()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.exit(3)\n"
        "_, status = os.waitpid(child, 0)\n"
        "assert os.waitstatus_to_exitcode(status) == 3\n"
        "with broker.client('a').blocking() as client:\n"
        "    client.publish('a', qos=1)\n"
        "print(broker.home.is_dir())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "python")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "True\n", "")
