"""More than a broker can do: what it still delivers, and what a quiet pair feels meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from bench import machine, pair, wire
from bench.cases import Case
from bench.measure import Settings, run, suits
from bench.peers import FLOOR, Peer
from bench.study import Found, Study

# Parts of what the broker delivers where no more is sent than there is room for.
OFFERED = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
# Topics in turn: the broker has to look up each message, so that it, and not the generator, is what
# is overloaded.
FLOOD = ("fan-in", "--publishers", "50", "--subscribers", "1", "--topics", "200")

# Far below what a broker here can, and 64 MB a second for who does not read: all that kernel and
# queue may hold for it is full within a second or two.
STEADY = ("fan-out", "--publishers", "1", "--subscribers", "2", "--payload", "65536")
STEADY_PER_S = 1_000.0
STEADY_SUBSCRIBERS = 2
TOPIC = "users/some/bench"

# Who says under `$SYS/` how many messages it dropped.
SAYS_DROPPED = ("casemate", "mosquitto")

OFFER, SENT, GOODPUT = "offered a second", "sent a second", "delivered a second"
P50, P99, NEVER = "pair: p50, µs", "pair: p99, µs", "pair: never came"
MEMORY, CORE = "memory at most, MiB", "part of its core"
LOST, DROPPED = "lost after it was sent", "dropped, says the broker"
COLUMNS = (OFFER, SENT, GOODPUT, P50, P99, NEVER, MEMORY, CORE, LOST, DROPPED)
ALONE = "pair alone"


@dataclass(frozen=True)
class Load:
    """Is what is done to the broker beside the pair.

    Attributes:
        words: Options of `casemate bench`.
        rate_per_s: Messages a second; 0 is none at all.
        deliveries: Of each message.
        slow: A subscriber of it never reads.
    """

    words: tuple[str, ...]
    rate_per_s: float = 0.0
    deliveries: int = 1
    slow: bool = False

    def case(self, qos: int = 0) -> Case:
        """Gives it as a case."""
        rate = ("--rate", f"{self.rate_per_s:.3f}") if self.rate_per_s else ()
        return Case("overload", "", (*self.words, *rate, "-t", TOPIC), qos)


# Nothing but the pair: one connection that does nothing.
STILL = Load(("idle", "--connections", "1"))


def overload(peers: Sequence[Peer], settings: Settings, say: Callable[[str], None]) -> Study:
    """Floods each broker with parts and multiples of what it can deliver.

    Args:
        peers: Who takes part, where they can.
        settings: How much.
        say: Is told of each run, in a line.

    Returns:
        For each broker, QoS and part, what came of it.
    """
    study = Study("overload", COLUMNS, settings, say)
    for peer in peers:
        for qos in (0, 1):
            if peer is FLOOR or not suits(peer, Load(FLOOD).case(qos)):
                continue
            name = f"{peer.name}, QoS {qos}"
            with study.careful(f"{name}, capacity"):
                with peer.serving() as reach:
                    able = run(Load(FLOOD).case(qos), reach.words, reach.pid, study.longer(peer))
                capacity = float(able["delivered_per_s"])
                say(f"{study.suite} {name}: {capacity:,.0f} a second where there is room")
                study.add(f"{name}, {ALONE}", partial(_once, study, peer, qos, STILL))
                for part in OFFERED:
                    flood = Load(FLOOD, max(1.0, part * capacity))
                    study.add(f"{name}, {part:g} ×", partial(_once, study, peer, qos, flood))
    study.carry_out()
    return study


def slow_reader(peers: Sequence[Peer], settings: Settings, say: Callable[[str], None]) -> Study:
    """Measures a steady load with and without a subscriber of it that never reads; as `overload`.

    The load has two subscribers that read; the pair beside it has nothing to do with any of it.
    """
    study = Study("slow_reader", COLUMNS, settings, say)
    steady = Load(STEADY, STEADY_PER_S, STEADY_SUBSCRIBERS)
    for peer in peers:
        if peer is not FLOOR and suits(peer, steady.case()):
            study.add(f"{peer.name}, all read", partial(_once, study, peer, 0, steady))
            held = replace(steady, slow=True)
            study.add(f"{peer.name}, one never reads", partial(_once, study, peer, 0, held))
    study.carry_out()
    return study


def _once(study: Study, peer: Peer, qos: int, load: Load) -> Found:
    """Loads a fresh broker once while the pair talks."""
    with peer.serving() as reach:
        with pair.talking(reach) as talk, ExitStack() as stack:
            if load.slow:
                still = stack.enter_context(wire.Wire(reach, "bench-still", slow=True))
                still.subscribe([f"{TOPIC}/#"])
            report = run(load.case(qos), reach.words, reach.pid, study.longer(peer))
        most = machine.memory_bytes(reach.pid, most=True)
        dropped = wire.dropped(reach) if peer.name in SAYS_DROPPED else None
    came, never = talk.between(report["began_unix_s"], report["ended_unix_s"])
    found: dict[str, float] = {
        OFFER: round(load.rate_per_s * load.deliveries, 1),
        SENT: report["published_per_s"],
        GOODPUT: report["delivered_per_s"],
        NEVER: never,
        MEMORY: round(most / 2**20, 1),
        CORE: report["broker"]["core_used"],
        LOST: report["harm"]["lost"],
    }
    if came:
        found |= {P50: pair.percentile(came, 0.5), P99: pair.percentile(came, 0.99)}
    if dropped is not None:
        found[DROPPED] = dropped
    for name, count in report["harm"].items():
        if count and name != "lost":
            study.note(f"{peer.name}, QoS {qos}", f"{name.replace('_', ' ')} in a run")
    return found
