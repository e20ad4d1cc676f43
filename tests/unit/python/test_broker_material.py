"""Certificate, key and client CA from memory: presented, kept or replaced, never written down."""

from __future__ import annotations

import datetime as dt
import hashlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from casemate import identity
from casemate.broker import Broker
from casemate.config import Configuration, Listener
from casemate.errors import BrokerError, ConnectionLost, Refused, Untrusted
from casemate.home import Home
from casemate.identity import Accounts
from casemate.testing import ThrowAwayBroker


class Papers:
    """A certificate for this machine from an authority that no broker of ours has made."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert("localhost", "127.0.0.1")
        self.certificate = b"".join(one.bytes() for one in leaf.cert_chain_pems)
        self.key = leaf.private_key_pem.bytes()

    def trust(self, folder: Path) -> Path:
        file = folder / "ca.pem"
        file.write_bytes(self.authority.cert_pem.bytes())
        return file


@pytest.fixture(scope="module")
def papers() -> Papers:
    return Papers()


@pytest.fixture(scope="module")
def others() -> Papers:
    return Papers()


def presented(broker: Broker) -> bytes:
    """Gives the DER that the broker's first listener presents to whoever asks."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    at = broker.addresses[0]
    with (
        socket.create_connection((at.host, at.port)) as plain,
        context.wrap_socket(plain) as encrypted,
    ):
        der = encrypted.getpeercert(binary_form=True)
    assert der is not None
    return der


def der_of(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def files_with(content: bytes, folder: Path) -> set[str]:
    """Names the files in which something is written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name for path in files if content in path.read_bytes()}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Has everything that is temporary made in one folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path
    monkeypatch.setattr("tempfile.tempdir", None)


async def test_what_is_given_is_presented_and_never_written(
    papers: Papers, watched: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ca_file = papers.trust(tmp_path_factory.mktemp("trust"))
    async with Broker(certificate=papers.certificate, key=papers.key) as broker:
        assert presented(broker) == der_of(papers.certificate)
        async with broker.client("a", ca_file=ca_file) as client:
            await client.publish("a", qos=1)
        with pytest.raises(Untrusted):
            await broker.client("b", reconnect=False).connect()
        assert "casemate.toml" in files_with(b"", watched)
        assert files_with(papers.key.strip().splitlines()[1], watched) == set()


def test_files_are_taken_as_well_and_a_home_keeps_its_own(papers: Papers, tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    certificate.write_bytes(papers.certificate)
    key.write_bytes(papers.key)
    Home.init(tmp_path / "home")
    own = (tmp_path / "home" / "pki" / "server.crt").read_bytes()
    listeners = (Listener(kind="tls", port=0), Listener(kind="wss", port=0))
    configuration = Configuration(listeners=listeners).in_home(tmp_path / "home")
    options: dict[str, Any] = {"configuration": configuration}
    with Broker(tmp_path / "home", certificate=str(certificate), key=key, **options) as broker:
        assert presented(broker) == der_of(papers.certificate)
    with Broker(tmp_path / "home", **options) as broker:
        assert presented(broker) == der_of(own)


async def test_a_client_ca_decides_whose_certificates_count(
    papers: Papers, others: Papers, tmp_path: Path
) -> None:
    """Goal: a device of another authority comes in as its account, one of the home's does not.

    Method: the account is bound to the other certificate by its fingerprint, as always.
    """
    leaf = papers.authority.issue_cert("t7")
    (tmp_path / "device.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    der = der_of(leaf.cert_chain_pems[0].bytes())
    authority = papers.authority.cert_pem.bytes()
    async with ThrowAwayBroker(client_ca=authority) as broker:
        with Accounts(broker.home / identity.FILE_NAME) as store:
            store.add("t7", "device", ["operator"])
            store.add_certificate("t7", hashlib.sha256(der).digest(), 2**33)
        broker.reload()
        foreign = {"cert_file": tmp_path / "device.pem", "key_file": None}
        async with broker.client("operator", client_id="t7", **foreign) as client:
            await client.publish("a", qos=1)
        with pytest.raises((Untrusted, ConnectionLost, Refused)):
            await broker.client("operator", reconnect=False).connect()
        # Another authority is in force without a restart.
        outcome = broker.reload(client_ca=others.authority.cert_pem.bytes())
        assert outcome.changed
        assert not outcome.refused
        again = broker.client("operator", client_id="t7", reconnect=False, **foreign)
        with pytest.raises((Untrusted, ConnectionLost, Refused)):
            await again.connect()


async def test_a_reload_keeps_or_replaces_and_disconnects_nobody(
    papers: Papers, others: Papers, tmp_path: Path
) -> None:
    ca_file = papers.trust(tmp_path)
    async with (
        Broker(certificate=papers.certificate, key=papers.key) as broker,
        broker.client("a", ca_file=ca_file, reconnect=False) as client,
    ):
        assert broker.reload().changed == ()
        assert presented(broker) == der_of(papers.certificate)
        outcome = broker.reload(certificate=others.certificate, key=others.key)
        assert outcome.refused == ()
        assert any("changed" in one for one in outcome.changed)
        assert presented(broker) == der_of(others.certificate)
        await client.publish("still/here", qos=1)
    # What came into force counts at the next start as well.
    async with broker:
        assert presented(broker) == der_of(others.certificate)


@pytest.mark.parametrize("fault", ["mismatch", "garbage", "half", "expired"])
async def test_a_reload_with_something_wrong_leaves_what_was(
    papers: Papers, others: Papers, fault: str
) -> None:
    wrong: dict[str, Any] = {"certificate": others.certificate, "key": others.key}
    if fault == "mismatch":
        wrong["key"] = papers.key
    elif fault == "garbage":
        wrong["certificate"] = b"no certificate"
    elif fault == "half":
        wrong["certificate"] = others.certificate[: len(others.certificate) // 3]
    else:
        past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        leaf = others.authority.issue_cert("localhost", not_after=past)
        wrong = {
            "certificate": leaf.cert_chain_pems[0].bytes(),
            "key": leaf.private_key_pem.bytes(),
        }
    async with Broker(certificate=papers.certificate, key=papers.key) as broker:
        outcome = broker.reload(**wrong)
        assert len(outcome.refused) == 1
        assert "PRIVATE" not in outcome.refused[0]
        assert presented(broker) == der_of(papers.certificate)
        # The bad one is forgotten: the next look finds nothing wrong.
        assert broker.reload().refused == ()
        assert broker.problems == {}
        with pytest.raises(ValueError, match="together"):
            broker.reload(certificate=others.certificate)


# What cannot be


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"certificate": b"x"}, "together"),
        ({"key": b"x"}, "together"),
        ({"certificate": b"", "key": b"x"}, "certificate is empty"),
        ({"certificate": b"x", "key": b" \n"}, "key is empty"),
        ({"client_ca": ""}, "client_ca is empty"),
        ({"certificate": "-----BEGIN CERTIFICATE-----\n", "key": b"x"}, "PEM as text"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Broker(**wrong)


def test_a_key_that_was_given_as_text_is_not_shown(papers: Papers) -> None:
    text = papers.key.decode()
    with pytest.raises(ValueError, match="PEM as text") as caught:
        Broker(certificate=papers.certificate, key=text)
    assert text.splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize("fault", ["mismatch", "no certificate", "no key", "encrypted", "missing"])
def test_what_cannot_be_used_refuses_the_start_in_one_line(
    papers: Papers, others: Papers, fault: str, tmp_path: Path
) -> None:
    certificate: Any = papers.certificate
    key: Any = papers.key
    if fault == "mismatch":
        key = others.key
    elif fault == "no certificate":
        certificate = papers.key
    elif fault == "no key":
        key = papers.certificate
    elif fault == "encrypted":
        opened = serialization.load_pem_private_key(papers.key, None)
        key = opened.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    else:
        certificate, key = tmp_path / "gone.pem", tmp_path / "gone.key"
    expected = {
        "mismatch": "does not belong",
        "no certificate": "certificate",
        "no key": "private key",
        "encrypted": "is encrypted",
        "missing": "gone.pem cannot be read",
    }
    broker = Broker(certificate=certificate, key=key)
    with pytest.raises(BrokerError, match=expected[fault]) as caught:
        broker.start()
    assert caught.value.hint or fault == "missing"
    assert "\n" not in str(caught.value)
    assert not broker.is_running


@pytest.mark.parametrize("given", ["certificate", "client_ca"])
def test_what_no_listener_would_use_is_refused(papers: Papers, given: str) -> None:
    """Goal: nobody believes in TLS that is not there. Method: a listener in plaintext only."""
    options: dict[str, Any] = {"client_ca": papers.authority.cert_pem.bytes()}
    if given == "certificate":
        options = {"certificate": papers.certificate, "key": papers.key}
    broker = ThrowAwayBroker(kinds=("tcp",), **options)
    with pytest.raises(BrokerError, match="no listener"):
        broker.start()


def test_a_key_is_never_shown(papers: Papers) -> None:
    broker = Broker(certificate=papers.certificate, key=papers.key)
    shown = repr(broker._material)
    assert papers.key.decode().splitlines()[1] not in shown
    assert "key" not in shown
