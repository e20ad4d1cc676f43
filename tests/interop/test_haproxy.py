"""HAProxy before two brokers, with PROXY v2: TLS passed through, and TLS that ends there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest

from casemate.broker import Broker
from casemate.client import Client
from casemate.config import Listener
from casemate.errors import ClientError
from tests.interop import homes
from tests.interop.conftest import need

PATIENCE_S = 20.0
BALANCER = "127.0.0.1"

# Sessions are where their client was first: HAProxy reads the client id out of the CONNECT.
CONFIGURATION = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch

frontend passed
    bind fd@{passed}
    default_backend through

backend through
    balance roundrobin
    server first {host}:{tls[0]} send-proxy-v2
    server second {host}:{tls[1]} send-proxy-v2

frontend terminated
    bind fd@{terminated} ssl crt {certificate}
    tcp-request inspect-delay 10s
    tcp-request content accept if {{ req.payload(0,0),mqtt_is_valid }}
    tcp-request content reject
    default_backend inside

backend inside
    balance roundrobin
    stick-table type string len 64 size 1k expire 30m
    stick on req.payload(0,0),mqtt_field_value(connect,client_identifier)
    server first {host}:{tcp[0]} send-proxy-v2
    server second {host}:{tcp[1]} send-proxy-v2
"""


@dataclass
class Front:
    """Is a HAProxy with its two brokers.

    Attributes:
        brokers: Two instances of one home.
        passed: Port where TLS goes through to a broker.
        terminated: Port where TLS ends at HAProxy.
        authority: By which clients know both.
    """

    brokers: tuple[Broker, Broker]
    passed: int
    terminated: int
    authority: Path

    def addresses(self) -> list[set[str]]:
        """Gives from where the clients of each broker have come, as its events say."""
        return [
            {
                one.address.rpartition(":")[0]
                for one in broker.recent_events
                if one.client_id and one.address
            }
            for broker in self.brokers
        ]


def instance(home: Path) -> Broker:
    return homes.served(
        home,
        Listener(kind="tls", port=0, proxy_from=(f"{BALANCER}/32",), client_certificates="none"),
        Listener(kind="tcp", port=0, proxy_from=(f"{BALANCER}/32",)),
    )


def ports(brokers: tuple[Broker, Broker], kind: str) -> list[int]:
    return [one.port for broker in brokers for one in broker.addresses if one.kind == kind]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    program = need("haproxy", "haproxy")
    home = homes.made(tmp_path / "first")
    twin = Path(shutil.copytree(home, tmp_path / "second"))
    certificate = tmp_path / "balancer.pem"
    own = [home / "pki" / name for name in ("server.crt", "server.key")]
    certificate.write_bytes(b"".join(file.read_bytes() for file in own))
    with contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(instance(folder)) for folder in (home, twin))
        doors = [stack.enter_context(socket.create_server((BALANCER, 0))) for _ in range(2)]
        passed, terminated = (door.fileno() for door in doors)
        text = CONFIGURATION.format(
            host=BALANCER,
            passed=passed,
            terminated=terminated,
            certificate=certificate,
            tls=ports((one, two), "tls"),
            tcp=ports((one, two), "tcp"),
        )
        file = tmp_path / "haproxy.cfg"
        file.write_text(text)
        haproxy = subprocess.Popen(
            [program, "-db", "-f", str(file)],
            pass_fds=(passed, terminated),
            stdin=subprocess.DEVNULL,
        )
        try:
            first, second = (door.getsockname()[1] for door in doors)
            yield Front((one, two), first, second, homes.authority(home))
            assert haproxy.poll() is None
        finally:
            haproxy.kill()
            haproxy.wait(10)


def visitor(front: Front, port: int, source: str) -> aiomqtt.Client:
    return aiomqtt.Client(
        BALANCER,
        port,
        bind_address=source,
        username=homes.USER,
        password=homes.SECRET,
        identifier=f"visitor-{secrets.token_hex(4)}",
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_params=aiomqtt.TLSParameters(str(front.authority)),
    )


@pytest.mark.parametrize("way", ["passed", "terminated"])
async def test_brokers_behind_it_serve_and_know_the_real_addresses(front: Front, way: str) -> None:
    sources = [f"127.0.0.{number}" for number in range(11, 19)]
    for source in sources:
        topic = f"public/{secrets.token_hex(4)}"
        async with visitor(front, getattr(front, way), source) as one:
            await one.subscribe(topic, 1)
            await one.publish(topic, source, 1)
            async with asyncio.timeout(PATIENCE_S):
                message = await anext(one.messages)
            assert message.payload == source.encode()
    # The events are on their way for a moment longer than the messages.
    until = time.monotonic() + PATIENCE_S
    while set().union(*front.addresses()) != set(sources):
        assert time.monotonic() < until, front.addresses()
        await asyncio.sleep(0.05)
    first, second = front.addresses()
    assert len(first) == len(second) == len(sources) / 2


async def test_a_session_is_found_again_at_its_broker(front: Front) -> None:
    def session(name: str) -> Client:
        return Client(
            BALANCER,
            front.terminated,
            ca_file=front.authority,
            username=homes.USER,
            password=homes.SECRET,
            client_id=name,
            clean_start=False,
            session_expiry_s=300,
            reconnect=False,
        )

    names = [secrets.token_hex(4) for _ in range(6)]
    for name in names:
        async with session(name) as one:
            assert not one.session_present
            await one.subscribe(f"public/{name}", qos=2)
    for name in reversed(names):
        async with session(name) as one:
            assert one.session_present
            await one.publish(f"public/{name}", "x", qos=2)
            async with asyncio.timeout(PATIENCE_S):
                assert (await anext(one.messages)).text == "x"


async def test_when_one_broker_ends_the_other_serves(front: Front) -> None:
    front.brokers[0].stop()
    for number in range(4):
        async with visitor(front, front.passed, f"127.0.0.{number + 11}") as one:
            await one.publish("public/x", "x", 1)


async def test_no_proxy_header_is_no_connection_where_one_is_required(front: Front) -> None:
    (port, _) = ports(front.brokers, "tcp")
    plain = Client(
        BALANCER, port, tls=False, username=homes.USER, password=homes.SECRET, reconnect=False
    )
    with pytest.raises(ClientError):
        await plain.connect()


def test_a_proxy_header_from_anywhere_else_is_not_believed(front: Front) -> None:
    (port, _) = ports(front.brokers, "tcp")
    with socket.create_connection((BALANCER, port), 10, ("127.0.0.99", 0)) as stranger:
        # As MQTT it is a PUBREC of 82 bytes, which may not come first.
        header = b"PROXY TCP4 127.0.0.11 127.0.0.1 40000 1883\r\n"
        stranger.sendall(header.ljust(84))
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1024) == b""
    assert "127.0.0.11" not in set().union(*front.addresses())
