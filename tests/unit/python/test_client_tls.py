"""The client refuses every broker that does not prove itself, and says why in words.

Each test serves TLS with a certificate that is wrong in one way, and looks at the error; nothing
of MQTT may have left the client.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from casemate.client import Client, trust
from casemate.errors import CasemateError, ConnectionLost, Untrusted

NOW = datetime.now(UTC)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serves TLS (or not) and answers every CONNECT; gives the port and what clients said."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.read(1_000))
            writer.write(bytes.fromhex("20 03 00 00 00"))
            await reader.read(1_000)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await asyncio.sleep(0)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def refused(port: int, ca_file: Path | None, host: str = "127.0.0.1") -> CasemateError:
    with pytest.raises(CasemateError) as caught:
        await Client(host, port, ca_file=ca_file, reconnect=False).connect()
    return caught.value


async def test_a_broker_of_our_authority_is_trusted(authority: trustme.CA, ca_file: Path) -> None:
    context = server_context(authority.issue_cert("localhost", "127.0.0.1"))
    async with serving(context) as (port, heard):
        for host in ("127.0.0.1", "localhost"):
            async with Client(host, port, ca_file=ca_file):
                pass
    assert len(heard) == 2


async def test_a_broker_of_another_authority_is_refused(ca_file: Path) -> None:
    context = server_context(trustme.CA().issue_cert("127.0.0.1"))
    async with serving(context) as (port, heard):
        error = await refused(port, ca_file)
    assert isinstance(error, Untrusted)
    assert "authority that is not trusted" in str(error)
    assert "fingerprint" in error.hint
    assert not any(heard)


async def test_without_a_ca_file_the_systems_trust_decides(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    async with serving(context) as (port, heard):
        assert isinstance(await refused(port, None), Untrusted)
    assert not any(heard)


async def test_a_certificate_for_another_name_is_refused(
    authority: trustme.CA, ca_file: Path
) -> None:
    context = server_context(authority.issue_cert("broker.example"))
    async with serving(context) as (port, heard):
        for host in ("127.0.0.1", "localhost"):
            error = await refused(port, ca_file, host)
            assert isinstance(error, Untrusted)
            assert f'not valid for "{host}"' in str(error)
    assert not any(heard)


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (NOW - timedelta(days=9), NOW - timedelta(minutes=1), "has expired"),
        (NOW + timedelta(days=1), NOW + timedelta(days=9), "not valid yet"),
    ],
)
async def test_a_certificate_outside_its_time_is_refused(
    authority: trustme.CA, ca_file: Path, begins: datetime, ends: datetime, words: str
) -> None:
    leaf = authority.issue_cert("127.0.0.1", not_before=begins, not_after=ends)
    async with serving(server_context(leaf)) as (port, heard):
        error = await refused(port, ca_file)
    assert isinstance(error, Untrusted)
    assert words in str(error)
    assert "clock" in error.hint
    assert not any(heard)


async def test_a_plaintext_port_is_recognised(ca_file: Path) -> None:
    async with serving(None) as (port, _):
        error = await refused(port, ca_file)
    assert isinstance(error, Untrusted | ConnectionLost)
    assert "TLS" in str(error) or "closed" in str(error)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_broker_that_demands_a_certificate_says_so(
    authority: trustme.CA, ca_file: Path, version: ssl.TLSVersion
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    async with serving(context) as (port, heard):
        error = await refused(port, ca_file)
    assert isinstance(error, Untrusted | ConnectionLost)
    assert not any(heard)


async def test_a_client_certificate_of_another_authority_is_refused(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    own = tmp_path / "own.pem"
    trustme.CA().issue_cert("me").private_key_and_cert_chain_pem.write_to_path(str(own))
    async with serving(context) as (port, heard):
        with pytest.raises((Untrusted, ConnectionLost)):
            await Client(
                "127.0.0.1", port, ca_file=ca_file, cert_file=own, reconnect=False
            ).connect()
    assert not any(heard)


async def test_mosquitto_2130_no_later_attempt_trusts_what_the_first_did_not(ca_file: Path) -> None:
    context = server_context(trustme.CA().issue_cert("127.0.0.1"))
    async with serving(context) as (port, heard):
        for _ in range(3):
            assert isinstance(await refused(port, ca_file), Untrusted)
    assert not any(heard)


async def test_a_broker_that_comes_back_as_somebody_else_is_refused_for_good(
    authority: trustme.CA, ca_file: Path
) -> None:
    """The client reconnects by itself; it must not go on with, nor ask again, whoever is there."""
    context = server_context(authority.issue_cert("127.0.0.1"))
    async with (
        serving(context) as (port, heard),
        Client("127.0.0.1", port, ca_file=ca_file, reconnect_s_max=0.05) as one,
    ):
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        # A word is all that this server needs to close.
        one._exchange.link.write(b"\xe0\x00")
        with pytest.raises(Untrusted, match="not trusted"):
            async with asyncio.timeout(5):
                await anext(one.messages)
        with pytest.raises(Untrusted):
            await one.publish("t", qos=1)
    assert len(heard) == 1, "nothing of MQTT was said to the other"


def test_tls_1_1_is_never_offered() -> None:
    assert trust().minimum_version >= ssl.TLSVersion.TLSv1_2


def test_files_that_cannot_be_used_are_named(tmp_path: Path, ca_file: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for wrong in (empty, tmp_path / "missing.pem"):
        with pytest.raises(Untrusted, match=wrong.name):
            trust(wrong)
        with pytest.raises(Untrusted, match=wrong.name):
            trust(ca_file, wrong)
    with pytest.raises(Untrusted, match="without its certificate"):
        trust(ca_file, None, ca_file)


def test_a_key_of_another_certificate_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    one, other = authority.issue_cert("one"), authority.issue_cert("other")
    certificate, key = tmp_path / "one.crt", tmp_path / "other.key"
    one.cert_chain_pems[0].write_to_path(str(certificate))
    other.private_key_pem.write_to_path(str(key))
    with pytest.raises(Untrusted, match=r"one\.crt"):
        trust(None, certificate, key)


def test_tls_and_files_do_not_contradict_each_other(ca_file: Path) -> None:
    with pytest.raises(Untrusted, match="tls=False"):
        Client("localhost", tls=False, ca_file=ca_file)
    with pytest.raises(Untrusted, match="not both"):
        Client("localhost", tls=trust(), ca_file=ca_file)
