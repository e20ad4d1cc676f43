"""Runs cases against brokers, interleaved and repeated, each time against a fresh one."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import machine
from bench.cases import Case
from bench.peers import Missing, Peer

RUN_S_MAX = 300
STORM_S_MAX = 120

# A run's report as `casemate bench --json` prints it.
Report = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Says how much is measured.

    Attributes:
        rounds: Runs of each broker in each case; between two of one broker all others have theirs.
        seconds: Measured time of each run.
        warm_up_s: Time before it.
    """

    rounds: int = 3
    seconds: float = 1.0
    warm_up_s: float = 0.4

    def stretched(self, times: float) -> Settings:
        """Gives the same with longer times."""
        return replace(self, seconds=self.seconds * times, warm_up_s=self.warm_up_s * times)


@dataclass
class Figures:
    """Holds what one broker did in one case.

    Attributes:
        cost: µs of the broker's CPU time for each delivery or connection, or bytes of memory for
            each connection; one value for each run that came to its end.
        rate: Deliveries or connections a second, on one core.
        core_used: Part of its core that the broker had.
        generator_cost: µs of the generator's CPU time for each delivery.
        latency_us: p50, p99, p99.9 and the longest, one list for each run; at a rate only.
        load: Load average of the machine at each run.
        harm: What was wrong with messages, all runs together; empty where nothing was.
        faults: Why runs did not come to their end.
    """

    cost: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    core_used: list[float] = field(default_factory=list)
    generator_cost: list[float] = field(default_factory=list)
    latency_us: list[list[float]] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    harm: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, case: Case, report: Report) -> str:
        """Takes a run's report; gives its cost, or what is wrong with it, in words."""
        broker = report["broker"]
        if case.counts == "memory":
            before, after = broker["memory_bytes"][0], broker["memory_bytes"][-1]
            self.cost.append(round((after - before) / report["connected"], 1))
            self.rate.append(round(report["connected"] / report["setup_s"], 1))
        else:
            each = broker["cpu_us_each"]
            if each is None:
                self.faults.append("nothing was delivered in the measured time")
                return self.faults[-1]
            self.cost.append(each)
            storm = case.counts == "connection"
            self.rate.append(report["connected_per_s" if storm else "delivered_per_s"])
        self.core_used.append(broker["core_used"])
        if report["generator"]["cpu_us_each"] is not None:
            self.generator_cost.append(report["generator"]["cpu_us_each"])
        latency = report["latency_us"]
        if latency is not None:
            self.latency_us.append([latency[name] for name in ("p50", "p99", "p999", "most")])
        for name, count in {**report["harm"], "unsent": report["unsent"]}.items():
            if count:
                self.harm[name] = self.harm.get(name, 0) + count
        return f"{self.cost[-1]:,}"

    def summary(self) -> dict[str, Any]:
        """Gives medians and ranges beside the single runs."""
        return {
            "cost": spread(self.cost),
            "rate": spread(self.rate),
            "core_used": spread(self.core_used),
            "generator_cost": spread(self.generator_cost),
            "latency_us": [
                statistics.median(column) for column in zip(*self.latency_us, strict=True)
            ],
            "load": spread(self.load),
            "harm": self.harm,
            "faults": self.faults,
            "runs": {"cost": self.cost, "rate": self.rate},
        }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Gives median, least and most; None for no values."""
    if not values:
        return None
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def suits(peer: Peer, case: Case) -> bool:
    """True where a broker does what a case is about."""
    if case.peers and peer.name not in case.peers:
        return False
    if peer.suites and case.suite not in peer.suites:
        return False
    able = case.transport in peer.transports and case.version in peer.versions
    return able and case.qos <= peer.qos_max


def measure(
    peers: Sequence[Peer], case: Case, settings: Settings, say: Callable[[str], None]
) -> dict[str, Figures]:
    """Runs one case, round by round.

    Args:
        peers: Who takes part.
        case: What is done.
        settings: How much.
        say: Is told of each run, in a line.

    Returns:
        The figures of each broker that the case suits.
    """
    found = {peer.name: Figures() for peer in peers if suits(peer, case)}
    for number in range(settings.rounds):
        for peer in peers:
            if peer.name not in found:
                continue
            figures = found[peer.name]
            figures.load.append(machine.load_average())
            try:
                with peer.serving(case.transport) as reach:
                    longer = settings.stretched(peer.stretch)
                    shown = figures.add(case, run(case, reach.words, reach.pid, longer))
            except (Missing, RuntimeError) as error:
                figures.faults.append(str(error))
                shown = str(error)
            say(f"{case.suite} {case.name}, round {number + 1}, {peer.name}: {shown}")
    return found


def run(case: Case, words: Sequence[str], pid: int, settings: Settings) -> Report:
    """Loads one broker once.

    Raises:
        RuntimeError: The load could not run; the generator's own words.
    """
    program = str(Path(sys.executable).with_name("casemate"))
    command = [program, "bench", *case.options, *words, "--broker-pid", str(pid), "--json"]
    # A storm ends with its last connection, so that each handshake is counted whole.
    seconds = STORM_S_MAX if case.counts == "connection" else settings.seconds
    command += ["--seconds", str(seconds)]
    if "--warm-up" not in command:
        command += ["--warm-up", str(settings.warm_up_s)]
    try:
        done = subprocess.run(
            machine.on_core(machine.GENERATOR_CORE, command),
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no report after {RUN_S_MAX} s") from error
    if not done.stdout:
        lines = done.stderr.strip().splitlines() or ["{}"]
        raise RuntimeError(_words_of(lines[-1]))
    report: Report = json.loads(done.stdout)
    return report


def _words_of(line: str) -> str:
    """Gives what a generator that failed has said, without the number of the client it happened to.

    Two runs that fail for one reason then say the same.
    """
    try:
        message = str(json.loads(line)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = line[:200]
    return re.sub(r"^(?:the load could not run: )?(?:client \d+: )?", "", message)
