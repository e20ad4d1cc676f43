"""Throw-away brokers, identities and relays: secure as a real one, and gone afterwards.

Foreign clients and raw sockets look from outside; what a fault does is seen by the client.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import sys
import threading
from pathlib import Path
from typing import Any, get_args

import pytest

from casemate import testing
from casemate.client import Client, trust
from casemate.errors import (
    BrokerError,
    CasemateError,
    ConnectionLost,
    DeadlinePassed,
    NameRefused,
    PolicyError,
    Refused,
    UnknownRole,
    Unreachable,
    Untrusted,
)
from casemate.testing import Relay, ThrowAwayBroker, ThrowAwayCA
from casemate.testing.broker import Kind

POLICY = """
[roles.reader]
allow = [{ subscribe = "news/#" }]
[roles.writer]
allow = [{ publish = "news/%u" }]
"""


def test_what_is_offered_is_pinned() -> None:
    assert testing.__all__ == ["Files", "Relay", "ThrowAwayBroker", "ThrowAwayCA"]
    assert dir(testing) == testing.__all__
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name
    with pytest.raises(AttributeError):
        testing.Nothing  # noqa: B018 - that asking raises, is what is tested.


def test_nobody_is_let_in_without_proof(casemate_broker: ThrowAwayBroker) -> None:
    port = casemate_broker.listening().port
    options: dict[str, Any] = {"ca_file": casemate_broker.ca_file}
    for said in ({}, {"username": "operator", "password": "operator"}):
        with pytest.raises(Refused):
            Client("127.0.0.1", port, **options, **said).blocking().connect()
    with pytest.raises(CasemateError):
        Client("127.0.0.1", port, tls=False).blocking().connect()


def test_its_home_is_private_and_goes_with_it() -> None:
    broker = ThrowAwayBroker()
    folder = broker.home.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((broker.home / "pki" / "root.key").stat().st_mode) == 0o600
    with broker:
        pass
    assert not folder.exists()
    broker.stop()
    with pytest.raises(BrokerError, match="starts once"):
        broker.start()


def test_one_that_was_never_started_goes_too() -> None:
    broker = ThrowAwayBroker()
    folder = broker.home.parent
    del broker
    assert not folder.exists()


def test_brokers_share_an_authority_and_nothing_else() -> None:
    with ThrowAwayBroker() as one, ThrowAwayBroker() as two:
        assert one.ca_file.read_bytes() == two.ca_file.read_bytes()
        assert one.home != two.home
        one.identity("t7", "sensor")
        assert not (two.home / "identities" / "t7").exists()
        with two.client("operator").blocking() as client:
            client.publish("t", "x", qos=1, retain=True)
        with one.client("operator").blocking() as client:
            client.subscribe("t")
            with pytest.raises(DeadlinePassed):
                client.messages.take(0.05)
        # A device of the one means nothing to the other, though the same CA has issued it.
        stranger = one.identity("t7", "sensor")
        port = two.listening().port
        client_files = {"cert_file": stranger.certificate, "key_file": stranger.key}
        with pytest.raises(Refused):
            Client("127.0.0.1", port, ca_file=stranger.ca, **client_files).blocking().connect()


def test_a_policy_of_its_own_decides() -> None:
    with ThrowAwayBroker(policy=POLICY) as broker:
        with (
            broker.client("r", role="reader").blocking() as reader,
            broker.client("w", role="writer").blocking() as writer,
        ):
            reader.subscribe("news/#", qos=1)
            writer.publish("news/w", "x", qos=1)
            assert reader.messages.take(5).topic == "news/w"
            with pytest.raises(Refused):
                writer.publish("news/r", qos=1)
        with pytest.raises(UnknownRole):
            broker.client("s", role="sensor2")
        with pytest.raises(NameRefused):
            broker.client("../x", role="reader")


def test_a_wrong_policy_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ThrowAwayBroker().stop()
    before = set(tmp_path.iterdir())
    with pytest.raises(PolicyError):
        ThrowAwayBroker(policy="[roles.x]\nallow = 1\n")
    with pytest.raises(ValueError, match="at least one"):
        ThrowAwayBroker(kinds=())
    assert set(tmp_path.iterdir()) == before


def test_a_new_policy_is_in_force_when_the_call_returns(
    casemate_broker: ThrowAwayBroker,
) -> None:
    with casemate_broker.client("w", role="operator").blocking() as one:
        one.publish("news/w", qos=1)
        casemate_broker.set_policy("[roles.operator]\nallow = []\n")
        with pytest.raises(Refused):
            one.publish("news/w", qos=1)
        with pytest.raises(PolicyError):
            casemate_broker.set_policy("[roles]\n")
        casemate_broker.set_policy('[roles.operator]\nallow = [{ both = "news/#" }]\n')
        one.publish("news/w", qos=1)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_password_opens_each_kind_of_listener(kind: Kind) -> None:
    with ThrowAwayBroker(kinds=[kind]) as broker:
        secret = broker.add_user("ada", "console")
        at = broker.listening(kind)
        scheme = {"tls": "mqtts", "tcp": "mqtt"}.get(kind, kind)
        options = {"ca_file": broker.ca_file} if kind in ("tls", "wss") else {}
        url = f"unix://{at.path}" if kind == "unix" else f"{scheme}://127.0.0.1:{at.port}"
        with Client.from_url(url, username="ada", password=secret, **options).blocking() as one:
            one.subscribe("devices/#", qos=1)
            one.publish("devices/t7/commands/x", "go", qos=1)
            assert one.messages.take(5).text == "go"
        with pytest.raises(Refused):
            Client.from_url(url, username="ada", password="wrong", **options).blocking().connect()
        with pytest.raises(BrokerError, match="has no"):
            broker.listening("tls" if kind != "tls" else "ws")


def test_another_authority_is_not_trusted(
    casemate_broker: ThrowAwayBroker, casemate_ca: ThrowAwayCA
) -> None:
    port = casemate_broker.listening().port
    with pytest.raises(Untrusted, match="not trusted"):
        Client("127.0.0.1", port, ca_file=casemate_ca.ca_file).blocking().connect()
    stranger = casemate_ca.client("operator")
    options = {"cert_file": stranger.certificate, "key_file": stranger.key}
    with pytest.raises((Untrusted, ConnectionLost)):
        Client("127.0.0.1", port, ca_file=casemate_broker.ca_file, **options).blocking().connect()


def test_a_ca_serves_a_test_of_its_own() -> None:
    with ThrowAwayCA() as authority:
        made = authority.server()
        assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def serve() -> None:
                peer, _ = listening.accept()
                with context.wrap_socket(peer, server_side=True) as spoken:
                    spoken.recv(1)

            thread = threading.Thread(target=serve)
            thread.start()
            with (
                socket.create_connection(listening.getsockname()) as raw,
                trust(authority.ca_file).wrap_socket(raw, server_hostname="localhost") as spoken,
            ):
                assert spoken.version() == "TLSv1.3"
            thread.join(5)
        folder = made.ca.parent
    assert not folder.exists()


def test_a_forked_child_removes_nothing_of_its_parents() -> None:
    with ThrowAwayBroker() as broker:
        pid = os.fork()
        if pid == 0:
            try:
                broker.stop()
            finally:
                os._exit(0 if broker.home.exists() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with broker.client("operator").blocking() as one:
            one.publish("t", qos=1)


# Faults.


@pytest.fixture
def steady(casemate_broker: ThrowAwayBroker, casemate_relay: Relay) -> Client:
    return casemate_broker.client("t7", through=casemate_relay, reconnect_s_max=0.1)


def test_a_cut_is_survived(steady: Client, casemate_relay: Relay) -> None:
    with steady.blocking() as one:
        one.subscribe("t", qos=1)
        assert casemate_relay.connections == 1
        casemate_relay.cut()
        assert isinstance(one.wait_disconnected(5), ConnectionLost)
        one.wait_connected(5)
        one.publish("t", "again", qos=1)
        assert one.messages.take(5).text == "again"
        assert casemate_relay.accepted == 2


def test_a_stall_holds_everything_and_loses_nothing(steady: Client, casemate_relay: Relay) -> None:
    with steady.blocking() as one:
        one.subscribe("t", qos=1)
        casemate_relay.stall()
        one.publish("t", "held")
        with pytest.raises(DeadlinePassed):
            one.messages.take(0.1)
        casemate_relay.restore()
        assert one.messages.take(5).text == "held"
        assert casemate_relay.accepted == 1


def test_a_broker_that_seems_down_is_waited_for(steady: Client, casemate_relay: Relay) -> None:
    with steady.blocking() as one:
        casemate_relay.refuse()
        one.wait_disconnected(5)
        assert casemate_relay.connections == 0
        casemate_relay.restore()
        one.wait_connected(5)
        one.publish("t", qos=1)


def test_a_new_client_of_a_refusing_relay_hears_of_it(
    casemate_broker: ThrowAwayBroker, casemate_relay: Relay
) -> None:
    casemate_relay.refuse()
    with pytest.raises((ConnectionLost, Unreachable)):
        casemate_broker.client("t7", through=casemate_relay).blocking().connect()


def test_a_slow_relay_crawls(steady: Client, casemate_relay: Relay) -> None:
    with steady.blocking() as one:
        one.subscribe("t", qos=1)
        casemate_relay.slow(20_000)
        one.publish("t", bytes(10_000))
        # Twice the way, at half a second each.
        with pytest.raises(DeadlinePassed):
            one.messages.take(0.2)
        casemate_relay.restore()
        assert len(one.messages.take(10).payload) == 10_000
    with pytest.raises(ValueError, match="above 0"):
        casemate_relay.slow(0)


async def test_faults_are_made_in_asyncio_tests_too(
    casemate_broker: ThrowAwayBroker, casemate_relay: Relay
) -> None:
    async with casemate_broker.client("t7", through=casemate_relay, reconnect_s_max=0.1) as one:
        casemate_relay.cut()
        async with asyncio.timeout(5):
            await one.wait_disconnected()
            await one.wait_connected()
            await one.publish("t", qos=1)


def test_a_relay_to_nowhere_closes_what_it_accepts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        Relay("127.0.0.1", port) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as one,
    ):
        one.settimeout(5)
        assert one.recv(1) == b""
    relay.stop()
    with pytest.raises(CasemateError, match="relay"):
        relay.cut()


def test_the_relay_passes_on_what_was_said_before_an_end() -> None:
    """A goodbye and an end arrive in that order, however much was said."""
    said = os.urandom(1_000_000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(said)

        thread = threading.Thread(target=speak)
        thread.start()
        with (
            Relay("127.0.0.1", server.getsockname()[1]) as relay,
            socket.create_connection(("127.0.0.1", relay.port), timeout=5) as one,
        ):
            heard = b""
            while data := one.recv(65_536):
                heard += data
        thread.join(5)
    assert heard == said


def test_the_plugin_is_known_to_pytest(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.hasplugin("casemate")
    assert "casemate.testing.plugin" in sys.modules
