"""Measures a broker of this tree on loopback: what a delivered message costs it.

A fresh `casemate lab` serves each scenario on one core while mqload, the load generator that the
project measures with, runs on another. A run that loses, repeats or reorders a message fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STOP_SECONDS_MAX = 30
# What must be zero in a run that counts.
HARM = ("lost", "dup_or_reorder", "gaps", "unacked", "qos_wrong", "errors")

# A line of JSON from a program, whose fields are checked where they are used.
Report = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """One run of the load generator; `name` is its column in the table."""

    name: str
    arguments: tuple[str, ...]


def scenarios() -> Iterator[Scenario]:
    """Yields fan-in, fan-out and pairs, each at QoS 0, 1 and 2."""
    shapes = {
        "50→1": ("fanin", "--pubs", "50", "--subs", "1"),
        "1→100": ("fanout", "--subs", "100"),
        "50:50": ("pairs", "--pairs", "50"),
    }
    for qos in ("0", "1", "2"):
        for shape, arguments in shapes.items():
            yield Scenario(f"{shape} QoS {qos}", (*arguments, "--qos", qos))


def on_core(core: int, command: list[str]) -> list[str]:
    """Binds a command to one core where that is possible, so that two do not share one."""
    if shutil.which("taskset") and (os.cpu_count() or 1) > 1:
        return ["taskset", "-c", str(core), *command]
    return command


@contextmanager
def lab(core: int, tls: bool) -> Iterator[tuple[int, list[str]]]:
    """Runs a throw-away broker.

    Args:
        core: Core that it is bound to.
        tls: Measure its TLS listener instead of the plain one.

    Yields:
        Its process id, and the generator's arguments that reach it.
    """
    program = str(Path(sys.executable).with_name("casemate"))
    command = on_core(core, [program, "lab", "--shards", "1"])
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if broker.stdout is None:
            raise RuntimeError("the broker has no output")
        ready: Report = json.loads(broker.stdout.readline())
        password = ready["users"]["all"]
        arguments = ["--username", "all", "--password", password]
        if tls:
            arguments += ["--tls", "--cafile", ready["ca_file"], "--port", str(ready["tls_port"])]
        else:
            arguments += ["--port", str(ready["port"])]
        yield int(ready["pid"]), arguments
    finally:
        broker.terminate()
        try:
            broker.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            broker.kill()
            broker.wait()


def measure(mqload: str, scenario: Scenario, seconds: int, tls: bool) -> Report:
    """Runs one scenario against a fresh broker.

    Raises:
        RuntimeError: The generator failed; its own words are the message.
    """
    with lab(0, tls) as (pid, reach):
        command = [mqload, *scenario.arguments, *reach, "--broker-pid", str(pid)]
        command += ["--seconds", str(seconds), "--host", "127.0.0.1"]
        said = subprocess.run(on_core(1, command), capture_output=True, text=True, check=False)
    if said.returncode != 0:
        raise RuntimeError(f"{scenario.name}: {(said.stdout or said.stderr).strip()[-400:]}")
    report: Report = json.loads(said.stdout.splitlines()[-1])
    return report


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; the exit status is 1 where a run failed or harmed a message."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mqload", default=os.environ.get("MQLOAD", "mqload"), help="its path")
    parser.add_argument("--seconds", type=int, default=5, help="measured time of each run")
    parser.add_argument("--tls", action="store_true", help="measure over TLS")
    parser.add_argument("--json", type=Path, help="also write every report to this file")
    options = parser.parse_args(arguments)
    if shutil.which(options.mqload) is None:
        print(f"error: no load generator at {options.mqload}", file=sys.stderr)
        print("hint: build mqload and name it: MQLOAD=<path> make bench", file=sys.stderr)
        return 1
    reports, harmed = {}, False
    print(f"{'scenario':<14} {'messages/s':>12} {'µs/message':>11} {'core used':>10}")
    for scenario in scenarios():
        report = measure(options.mqload, scenario, options.seconds, options.tls)
        reports[scenario.name] = report
        harm = {name: report[name] for name in HARM if report.get(name)}
        harmed = harmed or bool(harm)
        print(
            f"{scenario.name:<14} {report['msgs_per_s']:>12,.0f} "
            f"{report['broker_us_per_msg']:>11.2f} {report['broker_util']:>10.2f}"
            + (f"   FAILED: {harm}" if harm else "")
        )
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
    return 1 if harmed else 0


if __name__ == "__main__":
    sys.exit(main())
