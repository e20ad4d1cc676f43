"""pub, sub and rr against a real broker: what each option does, over every way to reach it.

What a subscription prints was stored before, so that nothing has to be waited for; what must happen
while it listens is done by a process of its own, which says when it is ready.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from casemate.cli.app import execute
from casemate.client import Message
from casemate.client.blocking import BlockingClient
from casemate.testing import ThrowAwayBroker
from tests.unit.python.commands import casemate, running

Say = Callable[..., str]


@pytest.fixture(scope="module")
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker(kinds=("tls", "tcp", "wss", "ws", "unix")) as one:
        yield one


@pytest.fixture(scope="module")
def password_file(broker: ThrowAwayBroker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ada") / "password"
    file.write_text(broker.add_user("ada"))
    return file


@pytest.fixture
def other(broker: ThrowAwayBroker) -> Iterator[BlockingClient]:
    with broker.client("other").blocking() as one:
        yield one


@pytest.fixture
def say(broker: ThrowAwayBroker, capfd: pytest.CaptureFixture[str]) -> Say:
    """Gives what runs a command as the identity `desk` and gives what it printed."""
    broker.identity("desk")

    def run(*words: str, code: int = 0) -> str:
        ended = execute([words[0], "--as", "desk", "--home", str(broker.home), *words[1:]])
        out, err = capfd.readouterr()
        assert ended == code, err
        assert "Traceback" not in err
        return out or err

    return run


@pytest.fixture
def topic(request: pytest.FixtureRequest, other: BlockingClient) -> Iterator[str]:
    """Gives a topic of this test alone; what is stored on it goes with the test."""
    name = f"t/{request.node.name.replace('+', '_').replace('#', '_')}"
    yield name
    other.publish(name, b"", retain=True, qos=1)


def test_what_pub_stores_sub_prints(say: Say, topic: str) -> None:
    for qos in ("0", "1", "2"):
        assert say("pub", "-t", topic, "-m", f"hello {qos}", "-r", "-q", qos) == ""
        assert say("sub", topic, "-C", "1") == f"hello {qos}\n"
    assert say("sub", "-t", topic, "-C", "1", "-v") == f"{topic} hello 2\n"
    assert say("sub", "-t", topic, "-C", "1", "-N") == "hello 2"


def test_pub_says_in_json_what_it_has_done(say: Say, topic: str) -> None:
    said = json.loads(say("pub", topic, "x", "--json", "--repeat", "3", "-q", "1"))
    assert said == {"topic": topic, "published": 3}


def test_a_payload_leaves_as_it_was_given(
    say: Say, topic: str, other: BlockingClient, tmp_path: Path
) -> None:
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(256)))
    say("pub", "-t", topic, "-f", str(file), "-r", "-q", "1")
    assert stored(other, topic) == bytes(range(256))
    say("pub", "-t", topic, "-m", os.fsdecode(b"\xff\xfe"), "-r", "-q", "1")
    assert stored(other, topic) == b"\xff\xfe"
    say("pub", "-t", topic, "-n", "-r", "-q", "1")
    assert stored(other, topic) is None


def stored(client: BlockingClient, topic: str) -> bytes | None:
    """Gives what the broker has stored, or None where that is nothing."""
    with client.subscription(topic, qos=1, retain_as_published=True) as messages:
        client.publish(topic, b"end of what was stored", qos=1)
        first = next(iter(messages))
        return first.payload if first.retain else None


WAYS: dict[str, Callable[[ThrowAwayBroker], list[str]]] = {
    "host and port": lambda one: ["-h", "localhost", "-p", str(one.listening().port)],
    "an address": lambda one: ["-h", "127.0.0.1", "-p", str(one.listening().port), "-V", "311"],
    "mqtts": lambda one: ["-L", f"mqtts://localhost:{one.listening().port}"],
    "wss": lambda one: ["-L", f"wss://localhost:{one.listening('wss').port}/mqtt"],
    "every harmless option": lambda one: [
        "-h", "localhost", "-p", str(one.listening().port), "--tls-version", "tlsv1.3",
        "--tls-alpn", "mqtt", "--tls-use-os-certs", "-A", "127.0.0.1", "--nodelay", "-k", "30",
        "-M", "5", "-I", "prefix-", "--will-topic", "w", "--will-payload", "x", "--will-qos", "1",
        "--will-retain", "-x", "60", "-V", "mqttv5",
    ],
}  # fmt: skip
PLAIN_WAYS: dict[str, Callable[[ThrowAwayBroker], list[str]]] = {
    "mqtt": lambda one: ["-L", f"mqtt://127.0.0.1:{one.listening('tcp').port}", "-V", "31"],
    "ws": lambda one: ["-L", f"ws://localhost:{one.listening('ws').port}/mqtt"],
    "plaintext by name": lambda one: [
        "-h", "localhost", "-p", str(one.listening("tcp").port), "--insecure-plaintext",
    ],
    "unix": lambda one: ["--unix", str(one.home / "mqtt.sock")],
    "unix URL": lambda one: ["-L", f"unix://{one.home}/mqtt.sock"],
    "short unix URL": lambda one: ["-L", f"unix:{one.home}/mqtt.sock"],
}  # fmt: skip


@pytest.mark.parametrize("way", [*WAYS, *PLAIN_WAYS])
def test_each_way_leads_to_the_broker(
    way: str,
    broker: ThrowAwayBroker,
    password_file: Path,
    topic: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    proof = ["-u", "ada", "--password-file", str(password_file)]
    if way in WAYS:
        proof += ["--cafile", str(broker.ca_file)]
    reach = {**WAYS, **PLAIN_WAYS}[way](broker)
    assert execute(["pub", *reach, *proof, "-t", topic, "-m", way, "-r", "-q", "1"]) == 0
    assert execute(["sub", *reach, *proof, "-t", topic, "-C", "1"]) == 0
    assert capfd.readouterr() == (f"{way}\n", "")


def test_a_url_may_stand_first_and_name_the_topic(
    broker: ThrowAwayBroker,
    password_file: Path,
    topic: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    proof = ["--cafile", str(broker.ca_file), "--password-file", str(password_file)]
    url = f"mqtts://ada@localhost:{broker.listening().port}"
    assert execute(["pub", f"{url}/{topic}", "first", "-r", "-q", "1", *proof]) == 0
    assert execute(["sub", f"{url}/{topic}", "-C", "1", *proof]) == 0
    assert execute(["sub", url, topic, "-C", "1", *proof]) == 0
    assert execute(["sub", "-L", f"{url}/{topic.rpartition('/')[0]}/#", "-C", "1", *proof]) == 0
    assert capfd.readouterr() == ("first\n" * 3, "")


def test_a_password_in_a_url_works_and_is_warned_about(
    broker: ThrowAwayBroker, password_file: Path, topic: str, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = password_file.read_text()
    url = f"mqtts://ada:{secret}@localhost:{broker.listening().port}/{topic}"
    assert execute(["pub", url, "x", "-q", "1", "--cafile", str(broker.ca_file)]) == 0
    said = capfd.readouterr().err
    assert said.startswith("warning: the URL holds a password")
    assert "--password-file" in said
    assert secret not in said
    assert execute(["pub", url, "x", "--cafile", str(broker.ca_file), "--json"]) == 0
    assert "password" in json.loads(capfd.readouterr().err)["warning"]["message"]


def test_a_folder_of_cas_is_trusted_and_no_other(
    broker: ThrowAwayBroker, topic: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proof = broker.identity("desk")
    words = ["pub", "-h", "localhost", "-p", str(broker.listening().port), "-t", topic, "-m", "x"]
    words += ["--cert", str(proof.certificate), "--key", str(proof.key), "-q", "1"]
    assert execute([*words, "--capath", str(tmp_path)]) == 1
    assert "authority that is not trusted" in capfd.readouterr().err
    rehash(broker.ca_file, tmp_path)
    assert execute([*words, "--capath", str(tmp_path)]) == 0
    assert execute([*words, "--capath", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capfd.readouterr().err


def rehash(ca_file: Path, folder: Path) -> None:
    """Names a CA as `openssl rehash` does."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", ca_file]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    (folder / f"{name}.0").write_bytes(ca_file.read_bytes())


PROPERTIES = {
    "content-type": ["text/plain"],
    "correlation-data": ["abc"],
    "message-expiry-interval": ["3600"],
    "payload-format-indicator": ["1"],
    "response-topic": ["r/t"],
}


def test_properties_travel_with_a_message(say: Say, topic: str) -> None:
    words = [part for name, value in PROPERTIES.items() for part in ("-D", "publish", name, *value)]
    words += [
        "-D",
        "PUBLISH",
        "user-property",
        "k",
        "v 1",
        "-D",
        "publish",
        "user-property",
        "k",
        "2",
    ]
    say("pub", "-t", topic, "-m", "21.5", "-r", "-q", "1", *words)
    said = json.loads(
        say(
            "sub",
            topic,
            "-C",
            "1",
            "-q",
            "1",
            "--json",
            "-D",
            "subscribe",
            "subscription-identifier",
            "7",
        )
    )
    assert said.pop("time").endswith("+00:00")
    assert 3590 < said.pop("message_expiry_s") <= 3600
    assert said == {
        "topic": topic,
        "qos": 1,
        "retain": True,
        "size": 4,
        "payload": "21.5",
        "payload_is_text": True,
        "content_type": "text/plain",
        "response_topic": "r/t",
        "user_properties": [["k", "v 1"], ["k", "2"]],
        "subscription_ids": [7],
        "correlation_data_base64": base64.b64encode(b"abc").decode(),
    }


def test_a_will_with_properties_is_published_when_its_client_is_lost(
    broker: ThrowAwayBroker, other: BlockingClient, topic: str
) -> None:
    will = ["--will-topic", topic, "--will-payload", "gone", "--will-qos", "1"]
    will += ["-D", "will", "content-type", "text/x", "-D", "will", "will-delay-interval", "0"]
    will += ["-D", "will", "user-property", "k", "v", "-D", "connect", "user-property", "a", "b"]
    as_desk = ["--as", "desk", "--home", broker.home]
    broker.identity("desk")
    other.publish(f"{topic}/ready", "ready", retain=True, qos=1)
    with other.subscription(topic, qos=1) as messages:
        with running("sub", f"{topic}/ready", *as_desk, *will) as watching:
            watching.until("ready")
            watching.process.kill()
        message = next(iter(messages))
    assert (message.payload, message.qos) == (b"gone", 1)
    assert message.properties.content_type == "text/x"
    assert message.properties.user == (("k", "v"),)
    other.publish(f"{topic}/ready", b"", retain=True, qos=1)


def test_the_session_of_c_keeps_what_came_meanwhile(say: Say, topic: str) -> None:
    keep = ["-c", "-i", f"desk-{os.getpid()}", "-q", "1"]
    say("sub", topic, *keep, "-E", "-x", "600")
    for number in range(3):
        say("pub", topic, f"{number}", "-q", "1")
    assert say("sub", topic, *keep, "-C", "2") == "0\n1\n"
    # What was not printed was not acknowledged, and what was printed does not come again.
    assert say("sub", topic, *keep, "-C", "1") == "2\n"
    say("sub", "-U", topic, *keep, "-E")
    say("pub", topic, "unheard", "-q", "1")
    assert "0 of 1" in say("sub", "other/topic", *keep, "-x", "0", "-C", "1", "-W", "0.2", code=27)


def test_sub_leaves_out_what_it_is_told_to(say: Say, topic: str, other: BlockingClient) -> None:
    for name in ("a", "b", "c"):
        other.publish(f"{topic}/{name}", name, retain=True, qos=1)
    everything = f"{topic}/#"
    assert say("sub", everything, "-T", f"{topic}/b", "-C", "2") == "a\nc\n"
    assert "0 messages" in say("sub", everything, "-R", "-W", "0.3", code=27)
    assert say("sub", everything, "--retain-handling", "never", "-E") == ""
    removed = ["--remove-retained", "-T", f"{topic}/b", "-C", "2"]
    assert say("sub", everything, *removed) == "a\nc\n"
    assert say("sub", everything, "-C", "1") == "b\n"
    say("sub", f"{topic}/b", "--remove-retained", "-C", "1")


def test_retained_only_ends_with_the_first_fresh_message(
    broker: ThrowAwayBroker, topic: str, other: BlockingClient
) -> None:
    broker.identity("desk")
    other.publish(topic, "stored", retain=True, qos=1)
    words = ["sub", f"{topic}/#", "--retained-only", "--as", "desk", "--home", broker.home]
    with running(*words) as watching:
        watching.until("stored")
        other.publish(f"{topic}/fresh", "fresh", qos=1)
        assert watching.end() == 0
    assert watching.text == "stored\n"


def test_lines_are_sent_in_order_and_without_their_ends(
    broker: ThrowAwayBroker, topic: str, other: BlockingClient
) -> None:
    broker.identity("desk")
    lines = [b"%d" % number for number in range(500)]
    stdin = b"\n".join([*lines, b"with return\r", b"", b"\xff no text", b"unfinished"])
    wanted = [*lines, b"with return", b"", b"\xff no text", b"unfinished"]
    words = ["-t", topic, "-l", "--as", "desk", "--home", broker.home]
    with other.subscription(topic, qos=2) as messages:
        for qos in ("0", "1", "2"):
            done = casemate("pub", *words, "-q", qos, "-M", "7", "--json", stdin=stdin)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["published"] == len(wanted)
            assert [next(messages).payload for _ in wanted] == wanted


def test_stdin_is_sent_whole(broker: ThrowAwayBroker, topic: str, other: BlockingClient) -> None:
    broker.identity("desk")
    words = ["-t", topic, "-s", "--as", "desk", "--home", broker.home, "-q", "1"]
    with other.subscription(topic, qos=1) as messages:
        assert casemate("pub", *words, stdin=b"a\nb\x00\n").returncode == 0
        assert next(messages).payload == b"a\nb\x00\n"


def test_a_request_is_answered(
    broker: ThrowAwayBroker, topic: str, other: BlockingClient, say: Say
) -> None:
    with other.subscription(topic, qos=1) as requests:
        answering = threading.Thread(target=answer_all, args=(other, requests, 4))
        answering.start()
        assert say("rr", topic, "one") == "to one\n"
        assert say("rr", "-t", topic, "-m", "two", "-e", f"{topic}/back", "-q", "1") == "to two\n"
        assert json.loads(say("rr", topic, "-n", "--json"))["payload"] == "to "
        assert say("rr", topic, "311", "-V", "311", "-e", f"{topic}/old", "-v") == (
            f"{topic}/old to 311\n"
        )
        answering.join()


def answer_all(client: BlockingClient, requests: Iterator[Message], count: int) -> None:
    for _ in range(count):
        request = next(requests)
        if request.properties.response_topic is None:
            client.publish(f"{request.topic}/old", f"to {request.text}", qos=1)
        else:
            client.reply(request, f"to {request.text}")


def test_a_request_that_nobody_answers_ends_as_mosquitto_rr(
    say: Say, topic: str, other: BlockingClient
) -> None:
    with other.subscription(topic, qos=1):
        for version in ("5", "311"):
            words = ["-W", "0.3", "-V", version, "-e", "answers/here"]
            said = say("rr", topic, "x", "-q", "1", *words, code=27)
            assert f'no answer to "{topic}" came within 0.3 s' in said


def test_debug_says_what_happens_and_no_secret(
    broker: ThrowAwayBroker,
    password_file: Path,
    topic: str,
    other: BlockingClient,
    capfd: pytest.CaptureFixture[str],
) -> None:
    port = broker.listening().port
    at = ["-h", "localhost", "-p", str(port), "--cafile", str(broker.ca_file), "-d"]
    at += ["-u", "ada", "--password-file", str(password_file), "-i", "c1"]
    assert execute(["pub", *at, "-t", topic, "-m", "hunter22", "-q", "1", "-r"]) == 0
    assert execute(["sub", *at, "-t", topic, "-C", "1"]) == 0
    out, err = capfd.readouterr()
    assert out == "hunter22\n"
    lines = [line.split(" ", 2)[2] for line in err.splitlines()]
    assert lines[0] == f"connecting to localhost:{port}"
    assert lines[1].startswith(f"connected to localhost:{port} as 'c1': session new, alive")
    assert lines[2] == f"PUBLISH '{topic}' with 8 bytes left: 0x00"
    assert lines[3] == f"disconnecting from localhost:{port}"
    assert f"SUBSCRIBE '{topic}' is answered by 0x00" in lines
    assert f"PUBLISH '{topic}' with 8 bytes came: QoS 0" in lines
    assert "hunter22" not in err
    assert password_file.read_text() not in err


def test_a_share_of_the_messages_is_printed(say: Say, topic: str, other: BlockingClient) -> None:
    for number in range(20):
        other.publish(f"{topic}/{number}", "x", retain=True, qos=1)
    printed = say("sub", f"{topic}/#", "--random-filter", "0.1", "-W", "0.5", code=27)
    assert int(re.search(r"(\d+) messages", printed.replace("x\n", ""))[1]) < 10
    say("sub", f"{topic}/#", "--remove-retained", "-C", "20")
