"""The cases: what is done to each broker, and what of it is compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Of casemate and mosquitto: without more to their names, and with so many rules.
RULED = ("-20", "-1000")

SHAPES = {
    "50→1": ("fan-in", "--publishers", "50", "--subscribers", "1"),
    "1→100": ("fan-out", "--publishers", "1", "--subscribers", "100"),
    "50:50": ("pairs", "--publishers", "50"),
}


@dataclass(frozen=True)
class Case:
    """Is one thing that is done to each broker.

    Attributes:
        suite: Table that it belongs to.
        name: Its column there.
        words: What is done, in options of `casemate bench`.
        qos: QoS of both sides; who cannot do it is left out of this case.
        version: MQTT version, by its number on the wire.
        transport: Over which it is done.
        peers: The only brokers that it is about; empty means all.
        counts: What a broker's CPU time is divided by: `delivery` or `connection`.
    """

    suite: str
    name: str
    words: tuple[str, ...]
    qos: int = 0
    version: int = 4
    transport: str = "tcp"
    counts: str = "delivery"
    peers: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """All of its options."""
        version = {3: "31", 4: "311", 5: "5"}[self.version]
        return (*self.words, "-q", str(self.qos), "-V", version)


def cases() -> Iterator[Case]:
    """Yields all cases, in the order of their tables."""
    yield from _messages()
    yield from _modern()
    yield from _rules()
    yield from _paced()
    yield from _connections()


def _messages() -> Iterator[Case]:
    for qos in (0, 1, 2):
        for shape, words in SHAPES.items():
            yield Case("messages", f"{shape} QoS {qos}", words, qos)
    one = ("pairs", "--publishers", "1", "--window", "1")
    for qos in (0, 1):
        yield Case("wakeups", f"QoS {qos}", one, qos)
    ours = ("casemate", "casemate-2")
    for qos in (0, 1):
        for shape, words in SHAPES.items():
            yield Case("shards", f"{shape} QoS {qos}", words, qos, peers=ours)
    wide = ("fan-out", "--subscribers", "1000", "--at-once", "100", "--window", "20000")
    yield Case("wide", "1→1,000 QoS 0", wide)
    for payload, shown in ((16, "16 B"), (256, "256 B"), (4_096, "4 KiB"), (65_536, "64 KiB")):
        yield Case("sizes", shown, ("pairs", "--publishers", "10", "--payload", str(payload)))
    few = ("--publishers", "2", "--window", "16")
    yield Case("sizes", "1 MiB", ("pairs", *few, "--payload", "1048576"))


def _modern() -> Iterator[Case]:
    rich = ("pairs", "--publishers", "50", "--alias", "--properties")
    yield Case("modern", "50:50 alias, properties", rich, 0, 5)
    group = ("shared", "--publishers", "50", "--subscribers", "4")
    for qos in (0, 1):
        yield Case("modern", f"50→$share of 4, QoS {qos}", group, qos, 5)
    for total, shown in ((10, "10"), (1_000, "1,000"), (100_000, "100,000")):
        single = ("--topics", str(total // 10), "--single-filters")
        words = ("fan-in", "--publishers", "10", "--subscribers", "1", *single)
        yield Case("subscriptions", shown, words, 0, 5)


def _rules() -> Iterator[Case]:
    # No message has the topic of the one before it. A broker remembers topics and who may publish
    # there, and ours 192 MiB of them: with more in turn, nearly each message asks the rules anew.
    who = tuple(f"{name}{rules}" for name in ("casemate", "mosquitto") for rules in ("", *RULED))
    for topics, shown in (("100", "known topics"), ("200000", "new topics")):
        words = ("pairs", "--publishers", "10", "--topics", topics)
        for qos in (0, 1):
            yield Case("rules", f"{shown}, QoS {qos}", words, qos, peers=who)


def _paced() -> Iterator[Case]:
    rate = ("pairs", "--publishers", "50", "--rate", "5000")
    for qos in (0, 1):
        yield Case("latency", f"QoS {qos}", rate, qos)


def _connections() -> Iterator[Case]:
    for transport in ("tls", "wss"):
        for shape in ("1→100", "50:50"):
            name = f"{shape} {transport.upper()}"
            yield Case("secure", name, SHAPES[shape], 0, 4, transport)
    storm = ("connects", "--connections", "400", "--at-once", "32")
    yield Case("connects", "TCP", storm, counts="connection")
    for more, shown in (((), "TLS, full"), (("--tls-resume",), "TLS, resumed")):
        yield Case("connects", shown, (*storm, *more), transport="tls", counts="connection")
    yield Case("connects", "TLS, certificate", storm, transport="mtls", counts="connection")
    crowd = ("idle", "--connections", "5000", "--at-once", "100", "--warm-up", "0")
    for transport in ("tcp", "tls", "mtls", "wss"):
        yield Case("idle", transport.upper(), crowd, transport=transport, counts="memory")
