"""mosquitto_pub and mosquitto_sub against a lab: each transport, version and QoS.

The programs come from Debian's package mosquitto-clients; without it the tests are skipped with
that reason, or fail where CASEMATE_REQUIRE_INTEROP=1.
"""

from __future__ import annotations

import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.conftest import TRANSPORTS, RunningLab, Transport, need
from tests.unit.python.commands import casemate, running

VERSIONS = ("mqttv31", "mqttv311", "mqttv5")
PATIENCE_S = 15


def options(transport: Transport, version: str) -> list[str]:
    found = ["-h", transport.host, "-p", str(transport.port), "-V", version]
    if transport.ca_file:
        found += ["--cafile", transport.ca_file]
    if transport.cert_file and transport.key_file:
        found += ["--cert", transport.cert_file, "--key", transport.key_file]
    if transport.username and transport.password:
        found += ["-u", transport.username, "-P", transport.password]
    return found


def mosquitto_pub(transport: Transport, version: str, *arguments: str) -> None:
    program = need("mosquitto_pub", "mosquitto-clients")
    subprocess.run(
        [program, *options(transport, version), *arguments],
        check=True,
        timeout=PATIENCE_S,
        capture_output=True,
    )


@contextmanager
def mosquitto_sub(
    transport: Transport, version: str, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Runs a subscriber that has its subscription when the body begins."""
    program = need("mosquitto_sub", "mosquitto-clients")
    # Into a pipe its output would come at the end; by lines we hear of the subscription in time.
    by_lines = [need("stdbuf", "coreutils"), "-oL"]
    process = subprocess.Popen(
        [*by_lines, program, *options(transport, version), "-d", "-W", str(PATIENCE_S), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        heard = []
        for line in process.stdout:
            heard.append(line)
            if line.startswith("Subscribed"):
                break
        else:
            pytest.fail(f"no SUBACK: {heard}")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def messages(process: subprocess.Popen[str]) -> list[str]:
    """Gives what was printed beside the debug lines, once the subscriber has ended by itself."""
    assert process.stdout is not None
    # Its own time limit ends it; `communicate` would lose what is buffered here already.
    lines = process.stdout.read().splitlines()
    return [line.removeprefix("MSG ") for line in lines if line.startswith("MSG ")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_of_each_qos_arrive(lab: RunningLab, transport: str, version: str) -> None:
    way = lab.transport(transport)
    topic = f"public/{secrets.token_hex(4)}"
    with mosquitto_sub(
        way, version, "-t", f"{topic}/#", "-q", "2", "-C", "3", "-F", "MSG %t %q %p"
    ) as subscriber:
        for qos in "012":
            mosquitto_pub(way, version, "-t", f"{topic}/{qos}", "-q", qos, "-m", f"qos {qos}")
        assert messages(subscriber) == [f"{topic}/{qos} {qos} qos {qos}" for qos in "012"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_retained_message_waits_for_subscribers(lab: RunningLab, version: str) -> None:
    way = lab.transport("tls")
    topic = f"public/{secrets.token_hex(4)}"
    mosquitto_pub(way, version, "-t", topic, "-r", "-q", "1", "-m", "kept")
    with mosquitto_sub(way, version, "-t", topic, "-C", "1", "-F", "MSG %r %p") as subscriber:
        assert messages(subscriber) == ["1 kept"]
    mosquitto_pub(way, version, "-t", topic, "-r", "-n", "-q", "1")
    with mosquitto_sub(way, version, "-t", topic, "-C", "1", "-F", "MSG %r %p") as subscriber:
        mosquitto_pub(way, version, "-t", topic, "-m", "live", "-q", "1")
        assert messages(subscriber) == ["0 live"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_will_is_published_when_its_client_dies(lab: RunningLab, version: str) -> None:
    way = lab.transport("tcp")
    topic = f"public/{secrets.token_hex(4)}"
    with mosquitto_sub(way, version, "-t", f"{topic}/will", "-C", "1", "-F", "MSG %p") as watcher:
        with mosquitto_sub(
            way, version, "-t", topic, "--will-topic", f"{topic}/will", "--will-payload", "gone",
            "--will-qos", "1",
        ) as dying:  # fmt: skip
            dying.kill()
            dying.wait()
        assert messages(watcher) == ["gone"]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_a_kept_session_gets_what_came_while_it_was_away(lab: RunningLab, version: str) -> None:
    way = lab.transport("tls")
    name = f"away-{secrets.token_hex(4)}"
    topic = f"public/{name}"
    keep = ["-i", name, "-c", "-q", "1", "-t", topic]
    if version == "mqttv5":
        keep += ["-x", "300"]
    with mosquitto_sub(way, version, *keep) as subscriber:
        subscriber.kill()
        subscriber.wait()
    for number in range(3):
        mosquitto_pub(way, version, "-t", topic, "-q", "1", "-m", str(number))
    program = need("mosquitto_sub", "mosquitto-clients")
    back = subprocess.run(
        [program, *options(way, version), *keep, "-C", "3", "-W", str(PATIENCE_S)],
        check=True,
        timeout=PATIENCE_S + 5,
        capture_output=True,
        text=True,
    )
    assert back.stdout.split() == ["0", "1", "2"]


def test_a_wrong_password_is_refused(lab: RunningLab) -> None:
    way = lab.transport("tcp")
    program = need("mosquitto_pub", "mosquitto-clients")
    wrong = [*options(way, "mqttv5")[:-1], "not the password", "-t", "public/x", "-m", "x"]
    begun = time.monotonic()
    done = subprocess.run(
        [program, *wrong], check=False, timeout=PATIENCE_S, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert time.monotonic() - begun < PATIENCE_S


def test_a_broker_of_another_authority_is_refused_by_mosquitto_too(
    lab: RunningLab, tmp_path: object
) -> None:
    import trustme

    way = lab.transport("tls")
    program = need("mosquitto_pub", "mosquitto-clients")
    with trustme.CA().cert_pem.tempfile() as other:
        arguments = ["--cafile", other, "-t", "public/x", "-m", "x"]
        plain = ["-h", way.host, "-p", str(way.port), "-V", "mqttv5"]
        done = subprocess.run(
            [program, *plain, *arguments], check=False, timeout=PATIENCE_S, capture_output=True
        )
    assert done.returncode != 0


def test_an_ordinary_user_cannot_leave_its_rights(lab: RunningLab) -> None:
    way = lab.transport("tcp", "some")
    topic = f"secret/{secrets.token_hex(4)}"
    everything = lab.transport("tcp")
    with mosquitto_sub(
        everything, "mqttv5", "-t", topic, "-t", "public/end", "-C", "1", "-F", "MSG %t"
    ) as watcher:
        program = need("mosquitto_pub", "mosquitto-clients")
        subprocess.run(
            [program, *options(way, "mqttv5"), "-t", topic, "-q", "1", "-m", "x"],
            check=False,
            timeout=PATIENCE_S,
            capture_output=True,
        )
        mosquitto_pub(everything, "mqttv5", "-t", "public/end", "-q", "1", "-m", "end")
        assert messages(watcher) == ["public/end"]


def test_the_line_that_up_prints_for_mosquitto_works(tmp_path: Path) -> None:
    need("mosquitto_pub", "mosquitto-clients")
    home = tmp_path / "home"
    with running("up", "--home", home, "--host", "127.0.0.1", "--port", "0") as up:
        line = up.until("mosquitto_pub")
        done = casemate("device", "add", "thermostat-7", "--role", "sensor", "--home", home)
        assert done.returncode == 0, done.stderr
        until = time.monotonic() + PATIENCE_S
        # A new device is known to the running broker within a second.
        while subprocess.run(
            [*shlex.split(line), "-q", "1"], check=False, timeout=PATIENCE_S, capture_output=True
        ).returncode:
            assert time.monotonic() < until
        assert up.stop() == 0
