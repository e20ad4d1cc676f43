"""Messages that must be kept: what they cost by how they are kept, beside what the disk takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bench import disk, keepers, machine
from bench.cases import Case
from bench.measure import Settings, run, suits
from bench.peers import Peer
from bench.study import Found, Study

# 1,000 outstanding, and one that is sent when the one before was delivered and acknowledged; the
# sessions end with the run.
LASTING = ("--lasting", "600")
MANY = ("pairs", "--publishers", "50", "--window", "1000", *LASTING)
ONE = ("pairs", "--publishers", "1", "--window", "1", "-M", "1", *LASTING)
MANY_NAMES = ("50:50 QoS 1", "50:50 QoS 2")
CASES = (
    *(Case("durable", name, MANY, qos) for qos, name in enumerate(MANY_NAMES, 1)),
    Case("durable", "one at a time, QoS 1", ONE, 1),
)

RATE, COST, USED = "delivered a second", "µs of CPU for each delivery", "cores used"
SYNC_P50, SYNC_P99 = "sync p50, µs", "sync p99, µs"
COLUMNS = (RATE, COST, USED, SYNC_P50, SYNC_P99)


def measure(known: Sequence[Peer], settings: Settings, say: Callable[[str], None]) -> Study:
    """Measures each keeper in each case; the disk is looked at before and after each run.

    Args:
        known: Who takes part, where they keep anything.
        settings: How much.
        say: Is told of each run, in a line.

    Returns:
        For each case and broker, what a delivery costs, and how long a sync took meanwhile.

    Raises:
        RuntimeError: The data would be in memory.
    """
    study = Study("durable", COLUMNS, settings, say)
    with keepers.on_disk() as file_system:
        study.about["disk"] = file_system
        for case in CASES:
            for peer in known:
                if study.suite in peer.suites and suits(peer, case):
                    study.add(f"{peer.title}, {case.name}", partial(_once, study, peer, case))
        study.carry_out()
    return study


def _once(study: Study, peer: Peer, case: Case) -> Found:
    with machine.beside_broker():
        taken = disk.syncs_us()
    with peer.serving() as reach:
        report = run(case, reach.words, reach.pid, study.longer(peer))
    with machine.beside_broker():
        taken += disk.syncs_us()
    if not report["delivered"]:
        raise RuntimeError("nothing was delivered in the measured time")
    for name, count in report["harm"].items():
        if count:
            words = f"{name.replace('_', ' ')} in a run"
            study.note(f"{peer.title}, {case.name}", words)
    p50_us, p99_us = disk.quantiles_us(taken)
    return {
        RATE: report["delivered_per_s"],
        COST: report["broker"]["cpu_us_each"],
        USED: report["broker"]["core_used"],
        SYNC_P50: p50_us,
        SYNC_P99: p99_us,
    }
