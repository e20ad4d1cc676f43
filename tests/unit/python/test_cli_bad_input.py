"""What goes wrong ends in one clear line, with the right exit code and nothing half-written.

With --json that line is one object on stderr. Brokers that are real answer for what a broker says;
servers of the test answer for what none of ours would say.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from casemate.cli.app import execute
from casemate.home import Home
from casemate.testing import Files, ThrowAwayBroker, ThrowAwayCA
from tests.unit.python.commands import PATIENCE_S

NOW = datetime.now(UTC)


def judged(
    words: Sequence[str | Path], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> str:
    """Runs a command line twice, for people and for programs; gives what people were told.

    Either way the exit code is this one, stdout is empty, and the error is one line (with a hint,
    two) or one object.
    """
    line = [str(word) for word in words]
    assert execute(line) == code
    out, err = capfd.readouterr()
    assert out == ""
    error, *hint = err.splitlines()
    assert error.startswith("error: ")
    assert all(one.startswith("hint: ") for one in hint)
    assert len(hint) <= 1
    assert said in err
    assert execute([*line, "--json"]) == code
    out, err = capfd.readouterr()
    assert out == ""
    told = json.loads(err)["error"]
    assert told["message"] == error.removeprefix("error: ")
    assert [f"hint: {told['hint']}"] == (hint or ["hint: "])
    return "\n".join([error, *hint])


@pytest.fixture(scope="module")
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker(kinds=("tls", "tcp")) as one:
        yield one


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def reach(broker: ThrowAwayBroker, name: str = "desk") -> list[str]:
    proof = broker.identity(name)
    return [
        "-h", "localhost", "-p", str(broker.listening().port), "--cafile", str(proof.ca),
        "--cert", str(proof.certificate), "--key", str(proof.key),
    ]  # fmt: skip


ENDS = {"pub": ["-t", "a", "-m", "b", "-q", "1"], "sub": ["-t", "a"], "rr": ["-t", "a", "-m", "b"]}


# What is wrong with the line

WRONG_LINES: dict[str, tuple[list[str], str]] = {
    "no topic": (["pub"], "name a topic"),
    "no message": (["pub", "a"], "give exactly one of MESSAGE"),
    "two messages": (["pub", "a", "b", "-n"], "give exactly one of MESSAGE"),
    "a word too many": (["pub", "a", "b", "c"], '"c" is one word too many'),
    "no filter": (["sub"], "name at least one topic filter"),
    "an empty topic": (["pub", "-t", "", "-m", "x"], "it is empty"),
    "a wildcard": (["pub", "-t", "a/#", "-m", "x"], "it contains a wildcard"),
    "a wrong filter": (["sub", "a#"], "a wildcard does not fill its level"),
    "a filter that is no UTF-8": (["sub", os.fsdecode(b"\xff")], "cannot be written as UTF-8"),
    "a QoS of 3": (["pub", "a", "b", "-q", "3"], '"3" is not a whole number from 0 to 2'),
    "a QoS that is no number": (["pub", "a", "b", "-q", "x"], '"x" is not a whole number'),
    "no number at all": (["sub", "a", "-W", "nan"], '"nan" is not a number of at least 0'),
    "no version": (["pub", "a", "b", "-V", "6"], '-V is 5, 311 or 31, not "6"'),
    "no host": (["pub", "a", "b", "-h", ""], "name the broker's host"),
    "a host that is none": (["pub", "a", "b", "-h", "a..b"], "the host can be no name"),
    "a host with a port": (["pub", "a", "b", "-h", "127.0.0.1:1"], "no port, and IPv6 unbracketed"),
    "a host in brackets": (["pub", "a", "b", "-h", "[::1]"], "no port, and IPv6 unbracketed"),
    "a URL for a host": (["pub", "a", "b", "-h", "mqtts://h"], "a URL is given with -L"),
    "two passwords": (["pub", "a", "b", "-P", "x", "--password-file", "y"], "not both"),
    "two ids": (["pub", "a", "b", "-i", "x", "-I", "y"], "give -i or -I, not both"),
    "two places": (["pub", "a", "b", "--unix", "/x", "-p", "1"], "takes the place of -h and -p"),
    "two URLs": (["pub", "-L", "mqtts://h", "mqtts://h/a", "b"], "there are two URLs"),
    "two topics": (["pub", "-L", "mqtts://h/a", "-t", "b", "-m", "c"], "both name a topic"),
    "a host in two ways": (["pub", "mqtts://h/a", "b", "-h", "h"], "the URL and -h both say it"),
    "a user in two ways": (["pub", "mqtts://u@h/a", "b", "-u", "u"], "the URL and -u both say it"),
    "a scheme of others": (["pub", "tcp://h/a", "b"], "did you mean mqtt://?"),
    "a URL without a host": (["pub", "mqtts:///a", "b"], "the URL names no host"),
    "a key alone": (["pub", "a", "b", "--key", "x"], "--key needs --cert"),
    "TLS and plaintext": (
        ["pub", "a", "b", "--insecure-plaintext", "--cafile", "x"],
        "--cafile asks for TLS, and --insecure-plaintext for plaintext",
    ),
    "TLS and a plain URL": (
        ["pub", "mqtt://localhost/a", "b", "--cert", "x"],
        "--cert asks for TLS, and the URL for plaintext",
    ),
    "plaintext off this machine": (
        ["pub", "mqtt://192.0.2.1/a", "b"], "192.0.2.1 is not this machine"
    ),
    "plaintext and mqtts": (
        ["pub", "mqtts://h/a", "b", "--insecure-plaintext"], "the URL asks for TLS"
    ),
    "an identity at a unix socket": (
        ["pub", "unix:/x", "a", "b", "--as", "desk"], "a unix socket asks for a password"
    ),
    "two certificates": (["pub", "a", "b", "--as", "x", "--cert", "y"], "--as brings its own"),
    "a will without a topic": (["pub", "a", "b", "--will-qos", "1"], "a will needs --will-topic"),
    "a will with a wildcard": (["pub", "a", "b", "--will-topic", "#"], "topic name of the will"),
    "a session without an id": (["sub", "a", "-c"], "needs a client id: add -i"),
    "no time of a session": (["sub", "a", "-x", "soon"], "-x is a number of seconds"),
    "too long a session": (["sub", "a", "-x", "4294967296"], "-x is a number of seconds"),
    "a password alone": (["pub", "a", "b", "-P", "x", "-V", "311"], "a password needs a user name"),
    "an id that is no UTF-8": (["sub", "a", "-i", os.fsdecode(b"\xff")], "client_id cannot be"),
    "an id too long": (["sub", "a", "-i", "x" * 65_536], "client_id is longer than 65,535 bytes"),
    "too weak ciphers": (["pub", "a", "b", "--ciphers", "NULL"], "which is not offered otherwise"),
    "no ciphers": (["pub", "a", "b", "--ciphers", "none"], "none that OpenSSL knows"),
    "a level of ciphers": (["pub", "a", "b", "--ciphers", "ALL:@SECLEVEL=0"], "no @ rules"),
    "too old a TLS": (["pub", "a", "b", "--tls-version", "tlsv1.1"], "is not one of tlsv1.2"),
    "no ALPN": (["pub", "a", "b", "--tls-alpn", ""], "--tls-alpn is a name"),
    "no proxy": (["pub", "a", "b", "--proxy", "ftp://h"], "a proxy is http://"),
    "no own address": (["pub", "a", "b", "-A", "nonsense"], "an IP address of this machine"),
    "a format": (["sub", "a", "-F", "%z"], '"%z" means nothing in a format'),
    "nothing to print": (["sub", "a", "-R", "--retained-only"], "leave nothing to print"),
    "an option of 5.0": (["sub", "a", "-V", "311", "--retain-handling", "new"], "of MQTT 5.0"),
    "a property of 5.0": (
        ["pub", "a", "b", "-V", "311", "-D", "publish", "content-type", "x"], "-D is of MQTT 5.0"
    ),
    "no answer's topic": (["rr", "a", "b", "-V", "311"], "add -e"),
    "an answer's topic twice": (
        ["rr", "a", "b", "-D", "publish", "response-topic", "x"], "this command sets itself"
    ),
    "lines and repeat": (["pub", "-t", "a", "-l", "--repeat", "2"], "-l has many"),
    "no option": (["pub", "a", "b", "--nonsense"], "No such option: --nonsense"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_LINES)
def test_a_wrong_line_is_told_before_anything_is_done(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path))
    words, said = WRONG_LINES[name]
    judged(words, 2, said, capfd)


PROPERTIES: dict[str, tuple[list[str], str]] = {
    "no packet": (["nonsense", "x", "y"], "a property belongs to connect, publish"),
    "a silent packet": (["puback", "x", "y"], "this client says nothing there"),
    "no name": (["publish"], "the name of a property follows"),
    "an unknown name": (["publish", "nonsense", "x"], "known are content-type"),
    "no value": (["publish", "content-type"], "a value follows"),
    "half a pair": (["publish", "user-property", "x"], "a name and a value follow"),
    "a flag": (["publish", "payload-format-indicator", "2"], "the value is 0 or 1"),
    "a number": (["publish", "message-expiry-interval", "1_0"], "a whole number from 0 to"),
    "too large a number": (["connect", "receive-maximum", "65536"], "from 1 to 65,535"),
    "what the client does": (["publish", "topic-alias", "1"], "sends every topic in full"),
    "another proof": (["connect", "authentication-method", "x"], "certificate or password"),
    "no text": (["publish", "content-type", os.fsdecode(b"\xff")], "the value is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_wrong_property_is_told(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    words, said = PROPERTIES[name]
    # Last, so that a word that is missing is not taken from the options behind it.
    line = ["pub", "--json", "a", "b", "-D", *words]
    assert execute(line) == 2
    error = json.loads(capfd.readouterr().err)["error"]
    assert error["message"].startswith("-D ")
    assert said in error["message"]


def test_a_property_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    twice = ["-D", "publish", "content-type", "x"] * 2
    judged(["pub", "a", "b", *twice], 2, "it can be said once", capfd)


# What is wrong with files


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-f", "{}/missing"], 3, "it cannot be read: no such file or directory"),
        (["-f", "{}"], 3, "it cannot be read: is a directory"),
        (["-m", "x", "--password-file", "{}/missing"], 3, "no such file"),
        (["-m", "x", "--password-file", "{}/bytes"], 3, "is not UTF-8"),
        (["-m", "x", "--password-file", "{}/long"], 3, "longer than 4096 bytes"),
        (["-m", "x", "--cafile", "{}/missing"], 1, "the CA file"),
        (["-m", "x", "--cafile", "{}/bytes"], 1, "the CA file"),
        (["-m", "x", "--capath", "{}/missing"], 1, "no such folder"),
        (["-m", "x", "--cert", "{}/missing"], 1, "the client certificate"),
        (["-m", "x", "--cert", "{}/bytes", "--key", "{}/bytes"], 1, "both files are PEM"),
        (["-m", "x", "--cert", "{}/c.crt", "--key", "{}/locked.key"], 1, "openssl pkey"),
        (["-m", "x", "--as", "desk", "--home", "{}/missing"], 3, "there is no home"),
        (["-m", "x", "--as", "nobody", "--home", "{}/home"], 3, "device add nobody"),
        (["-m", "x", "--as", "../desk", "--home", "{}/home"], 1, "cannot be the name"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    options: list[str], code: int, said: str, files: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("{}", str(files)) for word in options]
    judged(["pub", "-t", "a", *words], code, said, capfd)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cryptography.hazmat.primitives import serialization

    folder = tmp_path_factory.mktemp("files")
    Home.init(folder / "home")
    (folder / "bytes").write_bytes(b"\xff\x00")
    (folder / "long").write_bytes(b"x" * 5_000)
    with ThrowAwayCA() as ca:
        made = ca.client("x")
        (folder / "c.crt").write_bytes(made.certificate.read_bytes())
        key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    (folder / "locked.key").write_bytes(locked)
    return folder


# What is wrong on the way to the broker


@pytest.mark.parametrize("command", ENDS)
def test_where_nothing_listens_that_is_said(
    command: str, free_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [command, "-h", "127.0.0.1", "-p", str(free_port), *ENDS[command]]
    judged(words, 1, f"nothing listens on 127.0.0.1:{free_port}", capfd)


def test_a_unix_socket_that_is_none_is_said_to_be(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*ENDS["pub"], "--unix"]
    judged(["pub", *words, tmp_path / "missing"], 1, "there is no socket", capfd)
    (tmp_path / "file").touch()
    judged(["pub", *words, tmp_path / "file"], 1, "is this its socket?", capfd)
    judged(["pub", *words, tmp_path / ("x" * 200)], 1, "path too long", capfd)


def test_another_ca_is_not_trusted(
    broker: ThrowAwayBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    with ThrowAwayCA() as other:
        at = ["-h", "localhost", "-p", str(broker.listening().port), "--cafile", other.ca_file]
        for command, words in ENDS.items():
            judged([command, *at, *words], 1, "issued by an authority that is not trusted", capfd)


def test_another_name_is_not_trusted(
    broker: ThrowAwayBroker, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with ThrowAwayCA() as ca, tls_server(ca.server("broker.example")) as port:
        at = ["-h", "localhost", "-p", str(port), "--cafile", ca.ca_file]
        judged(["pub", *at, *ENDS["pub"]], 1, 'not valid for "localhost"', capfd)


def test_an_expired_broker_is_not_trusted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    leaf = authority.issue_cert(
        "localhost", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(minutes=1)
    )
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with serving(context) as port:
        at = ["-h", "localhost", "-p", str(port), "--cafile", tmp_path / "ca.pem"]
        judged(["pub", *at, *ENDS["pub"]], 1, "has expired", capfd)


def tls_server(made: Files) -> AbstractContextManager[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    return serving(context)


@contextmanager
def serving(context: ssl.SSLContext | None, says: bytes = b"") -> Iterator[int]:
    """Serves each connection with a few bytes, from a thread; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            # Ends by an error when the listener is closed.
            with contextlib.suppress(OSError):
                while True:
                    one, _ = listening.accept()
                    with one, contextlib.suppress(OSError):
                        inner = context.wrap_socket(one, server_side=True) if context else one
                        inner.recv(1_000)
                        inner.sendall(says)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("says", "said"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "sent bytes that are no MQTT"),
        (bytes.fromhex("20 03 00 87 00"), "not authorized (0x87)"),
        (bytes.fromhex("d0 00"), "answered CONNECT by PINGRESP"),
    ],
)
def test_what_is_no_broker_is_said_to_be_none(
    says: bytes, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(None, says) as port:
        judged(["pub", f"mqtt://127.0.0.1:{port}/a", "b"], 1, said, capfd)


def test_tls_and_plaintext_that_meet_are_told_apart(
    broker: ThrowAwayBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    tls, tcp = broker.listening().port, broker.listening("tcp").port
    hint = judged(["pub", f"mqtt://127.0.0.1:{tls}/a", "b"], 1, "closed the connection", capfd)
    assert "does it expect TLS" in hint
    words = ["pub", f"mqtts://localhost:{tcp}/a", "b", "--cafile", broker.ca_file]
    hint = judged(words, 1, f"localhost:{tcp}", capfd)
    assert "does it speak TLS there" in hint or "this may be the plaintext port" in hint


# What the broker says


@pytest.mark.parametrize("command", ENDS)
def test_a_wrong_password_is_refused_with_its_reason_code(
    command: str, broker: ThrowAwayBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    at = ["-h", "localhost", "-p", str(broker.listening().port), "--cafile", str(broker.ca_file)]
    words = [command, *at, "-u", "nobody", "-P", "hunter22", *ENDS[command]]
    assert "hunter22" not in judged(words, 1, "bad user name or password", capfd)
    assert execute([*words, "--json"]) == 1
    assert json.loads(capfd.readouterr().err)["error"]["reason_code"] == 0x86
    assert execute([*words, "--quiet"]) == 1
    assert capfd.readouterr() == ("", "")


def test_a_device_that_was_removed_is_refused(
    broker: ThrowAwayBroker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proof = broker.identity("lost")
    kept = shutil.copytree(proof.certificate.parent, tmp_path / "kept")
    Home.open(broker.home).remove_device("lost")
    broker.reload()
    at = ["-h", "localhost", "-p", str(broker.listening().port), "--cafile", str(kept / "ca.crt")]
    at += ["--cert", str(kept / "client.crt"), "--key", str(kept / "client.key")]
    judged(["pub", *at, *ENDS["pub"]], 1, "refused", capfd)


def test_a_certificate_of_another_ca_is_refused(
    broker: ThrowAwayBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    with ThrowAwayCA() as other:
        made = other.client("desk")
        at = ["-h", "localhost", "-p", str(broker.listening().port), "--cafile", broker.ca_file]
        words = ["--cert", made.certificate, "--key", made.key, *ENDS["pub"]]
        judged(["pub", *at, *words], 1, "refused this client's certificate", capfd)


def test_what_the_policy_denies_is_refused(
    broker: ThrowAwayBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    broker.identity("t7", "sensor")
    as_sensor = ["--as", "t7", "--home", broker.home]
    judged(["pub", "other/a", "x", "-q", "1", *as_sensor], 1, "not authorized (0x87)", capfd)
    judged(["sub", "other/#", *as_sensor], 1, 'the subscription to "other/#"', capfd)


def test_a_message_that_is_too_large_is_refused_by_its_sender(
    broker: ThrowAwayBroker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(4 * 1024 * 1024)
    words = ["pub", "-t", "a", "-f", file, "-q", "1", *reach(broker)]
    judged(words, 1, "passes the maximum of", capfd)
    with file.open("wb") as sparse:
        sparse.truncate(268_435_456)
    judged(words, 3, "larger than any MQTT message", capfd)
