"""The client for programs without an event loop: threads, Ctrl-C, forks, and the end of a program.

What must hold in a process of its own is tried in one, with a real signal or a real fork.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from casemate.client import Client, TopicPattern, Will
from casemate.client.blocking import BlockingClient
from casemate.errors import ClientError, DeadlinePassed, NotConnected, Refused, Unreachable
from casemate.testing import ThrowAwayBroker

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker() as one:
        yield one


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "casemate-client"]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_messages_of_each_qos_arrive_in_order(broker: ThrowAwayBroker, version: int) -> None:
    with broker.client("one", version=version).blocking() as one:
        assert one.subscribe("a/+", TopicPattern("b/{x}"), qos=2) == [2, 2]
        one.unsubscribe("b/+")
        for qos in (0, 1, 2):
            for number in range(20):
                one.publish("a/1", str(number), qos=qos)
        found = [one.messages.take(10).text for _ in range(60)]
        assert found == [str(number) for number in range(20)] * 3
        assert (one.client_id, one.is_connected, one.session_present) == ("one", True, False)
        assert one.limits.qos_max == 2
    assert not threads()


def test_a_block_has_messages_of_its_own(broker: ThrowAwayBroker) -> None:
    with broker.client("one").blocking() as one:
        with one.subscription("a", qos=1) as messages:
            one.publish("a", "x", qos=1)
            assert next(messages).text == "x"
        with pytest.raises(DeadlinePassed, match="no message came"):
            one.messages.take(0.01)
        assert list(messages) == []


def test_requests_are_answered_from_another_thread(broker: ThrowAwayBroker) -> None:
    entered = threading.Event()

    def answer(echo: BlockingClient) -> None:
        with echo.subscription("echo", qos=1) as requests:
            entered.set()
            for request in requests:
                echo.reply(request, request.payload.upper(), qos=0)

    with broker.client("echo").blocking() as echo, broker.client("one").blocking() as one:
        thread = threading.Thread(target=answer, args=(echo,))
        thread.start()
        assert entered.wait(10)
        assert one.request("echo", "hello").text == "HELLO"
        echo.close()
        thread.join(10)
        assert not thread.is_alive()


def test_many_threads_may_publish_and_read(broker: ThrowAwayBroker) -> None:
    with broker.client("one").blocking() as one, ThreadPoolExecutor(8) as pool:
        one.subscribe("t", qos=1)
        list(pool.map(lambda number: one.publish("t", str(number), qos=1), range(200)))
        found = list(pool.map(lambda _: int(one.messages.take(10).text), range(200)))
        assert sorted(found) == list(range(200))


def test_a_message_is_acknowledged_when_it_is_handed_out(broker: ThrowAwayBroker) -> None:
    options = {"clean_start": False, "session_expiry_s": 60}
    with broker.client("kept", **options).blocking() as one, broker.client("two").blocking() as two:
        one.subscribe("t", qos=1)
        for number in range(5):
            two.publish("t", str(number), qos=1)
        # The rest has crossed into the iterator's batch, and not into the program.
        assert next(one.messages).text == "0"
        one.publish("elsewhere", qos=1)
    with broker.client("kept", **options).blocking() as one:
        assert one.session_present
        assert [one.messages.take(10).text for _ in range(4)] == ["1", "2", "3", "4"]


def test_a_message_can_be_acknowledged_by_hand(broker: ThrowAwayBroker) -> None:
    options = {"clean_start": False, "session_expiry_s": 60, "acknowledge_by_hand": True}
    with broker.client("careful", **options).blocking() as one:
        one.subscribe("t", qos=1)
        for number in range(3):
            one.publish("t", str(number), qos=1)
        found = [one.messages.take(10) for _ in range(3)]
        one.acknowledge(found[0])
        one.publish("elsewhere", qos=1)
    with broker.client("careful", **options).blocking() as one:
        assert [one.messages.take(10).text for _ in range(2)] == ["1", "2"]


def test_errors_are_those_of_the_client(broker: ThrowAwayBroker) -> None:
    with broker.client("t7", role="sensor").blocking() as one:
        with pytest.raises(Refused, match="not authorized"):
            one.publish("devices/t8/temp", qos=1)
        with pytest.raises(ValueError, match="topic name"):
            one.publish("a/#")


def test_a_client_that_cannot_connect_leaves_no_thread() -> None:
    one = Client("localhost", 1, tls=False).blocking()
    with pytest.raises(Unreachable):
        one.connect()
    assert not threads()
    with pytest.raises(NotConnected, match="closed"):
        one.publish("t")
    one.close()


def test_before_and_after_its_time_a_client_refuses(broker: ThrowAwayBroker) -> None:
    one = broker.client("one").blocking()
    with pytest.raises(NotConnected, match="not connected yet"):
        one.publish("t")
    with pytest.raises(NotConnected, match="not connected yet"):
        one.wait_connected(1)
    with one:
        one.wait_connected(1)
        with pytest.raises(DeadlinePassed):
            one.wait_disconnected(0.01)
        with pytest.raises(ClientError, match="starts once"):
            one.connect()
        one.publish("t", "still here", qos=1)
    for late in (lambda: one.publish("t"), lambda: one.subscribe("t"), one.messages.take):
        with pytest.raises(NotConnected, match="closed"):
            late()
    assert list(one.messages) == []
    one.close()


def test_closing_from_another_thread_wakes_whoever_waits(broker: ThrowAwayBroker) -> None:
    ended: list[object] = []

    def read(one: BlockingClient) -> None:
        ended.append(list(one.messages))

    with broker.client("one").blocking() as one:
        thread = threading.Thread(target=read, args=(one,))
        thread.start()
        one.publish("t", qos=1)
    thread.join(10)
    assert ended == [[]]


def test_nothing_is_left_for_the_collector(broker: ThrowAwayBroker) -> None:
    """Unclosed transports and coroutines that were never awaited would warn here."""
    for _ in range(3):
        with broker.client("one").blocking() as one:
            one.subscribe("t")
    gc.collect()


# In a process of its own.

CONNECT = """\
import os, signal, sys, threading, time
from casemate.client import Client, Will
port, ca, cert, key = int(sys.argv[1]), *sys.argv[2:5]
def client(**options):
    return Client(
        "127.0.0.1", port, ca_file=ca, cert_file=cert, key_file=key, client_id="child",
        will=Will("wills/child", "lost"), **options,
    ).blocking()
"""


def child(broker: ThrowAwayBroker, program: str) -> subprocess.Popen[str]:
    address = broker.addresses[0]
    broker.client("child")
    folder = broker.home / "identities" / "child"
    files = [str(folder / name) for name in ("ca.crt", "client.crt", "client.key")]
    return subprocess.Popen(
        [
            sys.executable, "-W", "error", "-c", CONNECT + program,
            str(address.port), *files,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def wills(watcher: BlockingClient) -> list[str]:
    """Gives the wills that were published up to now."""
    watcher.publish("wills/none", qos=1)
    found = []
    while (message := watcher.messages.take(10)).topic != "wills/none":
        found.append(message.topic)
    return found


@pytest.fixture
def watcher(broker: ThrowAwayBroker) -> Iterator[BlockingClient]:
    with broker.client("watcher").blocking() as one:
        one.subscribe("wills/#", qos=1)
        yield one


@pytest.mark.parametrize(
    "waiting",
    [
        "client.messages.take()",
        "next(client.messages)",
        "client.wait_disconnected()",
        "client.request('wills/silent', timeout_s=60)",
    ],
)
def test_ctrl_c_ends_a_program_that_waits(
    broker: ThrowAwayBroker, watcher: BlockingClient, waiting: str
) -> None:
    process = child(
        broker,
        f"""
try:
    with client() as client:
        print("ready", flush=True)
        {waiting}
except KeyboardInterrupt:
    assert [t.name for t in threading.enumerate()] == ["MainThread"]
    print("interrupted")
""",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert said(process) == (0, "interrupted\n", "")
    assert [topic for topic in wills(watcher) if topic != "wills/silent"] == []


HANGS_AT_THE_HAND_OVER = """
real = asyncio.SelectorEventLoop.call_soon_threadsafe
def hand_over(loop, *words, **context):
    handle = real(loop, *words, **context)
    if threading.current_thread() is threading.main_thread():
        was_interrupted.wait(10)
    return handle
asyncio.SelectorEventLoop.call_soon_threadsafe = hand_over
"""


@pytest.mark.parametrize("where", ["", HANGS_AT_THE_HAND_OVER], ids=["waits", "hands over"])
def test_ctrl_c_while_it_connects_leaves_nothing(where: str) -> None:
    """A peer that accepts and says nothing holds the client in CONNECT.

    The interrupt meets the main thread where it waits for the end, and where it has just handed
    the work over, which the loop has begun already.
    """
    with subprocess.Popen(
        [
            sys.executable, "-W", "error", "-c",
            f"""
import asyncio, os, signal, socket, threading
from casemate.client import Client
was_interrupted = threading.Event()
{where}
silent = socket.create_server(("127.0.0.1", 0))
one = Client("127.0.0.1", silent.getsockname()[1], tls=False).blocking()
def interrupt():
    peer, _ = silent.accept()
    with peer:
        assert peer.recv(100)
        os.kill(os.getpid(), signal.SIGINT)
        was_interrupted.set()
        assert peer.recv(100) == b""
thread = threading.Thread(target=interrupt, daemon=True)
thread.start()
try:
    one.connect()
except KeyboardInterrupt:
    thread.join(10)
    assert [t.name for t in threading.enumerate()] == ["MainThread"]
    print("interrupted")
silent.close()
""",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert said(process) == (0, "interrupted\n", "")


def test_a_program_that_forgets_to_close_still_says_goodbye(
    broker: ThrowAwayBroker, watcher: BlockingClient
) -> None:
    process = child(broker, "one = client()\none.connect()\nprint('done')\n")
    assert said(process) == (0, "done\n", "")
    assert wills(watcher) == []


def test_a_forked_child_cannot_use_or_harm_the_parents_connection(
    broker: ThrowAwayBroker, watcher: BlockingClient
) -> None:
    process = child(
        broker,
        """
import gc, warnings
from casemate.errors import NotConnected
one = client(reconnect=False)
one.connect()
one.subscribe("wills/of/others")
# A thread of the parent holds the iterator's lock while the child is made.
thread = threading.Thread(target=lambda: list(one.messages), daemon=True)
thread.start()
time.sleep(0.2)
warnings.simplefilter("ignore")
pid = os.fork()
if pid == 0:
    for use in (lambda: one.publish("t"), lambda: one.subscribe("t"), one.wait_connected):
        try:
            use()
        except NotConnected as error:
            assert "another process" in str(error) or "process that made" in str(error)
        else:
            os._exit(1)
    one.close()
    gc.collect()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
for _ in range(5):
    one.publish("t", "still here", qos=1)
assert one.is_connected
one.close()
print("done")
""",
    )
    assert said(process) == (0, "done\n", "")
    assert wills(watcher) == []


def test_a_killed_program_is_lost(broker: ThrowAwayBroker, watcher: BlockingClient) -> None:
    """The counter-test: the will does come where nobody says goodbye."""
    process = child(broker, "one = client()\none.connect()\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert said(process)[0] == -signal.SIGKILL
    assert watcher.messages.take(10).topic == "wills/child"


def test_a_will_can_be_asked_for(broker: ThrowAwayBroker, watcher: BlockingClient) -> None:
    one = broker.client("one", will=Will("wills/one", "x")).blocking()
    one.connect()
    one.close(with_will=True)
    assert watcher.messages.take(10).topic == "wills/one"
