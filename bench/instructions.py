"""Instructions of the engine for each delivered message, counted by callgrind.

What the kernel and the shell around the engine cost is measured by the other suites; this one is
a guard that holds on a busy machine too, and `tests/bench/test_instructions.py` runs it.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench.machine import ROOT
from bench.results import Table

SUITE = "instructions"
COLUMN = "instructions"
# Counts of one toolchain differ by less than one in a thousand from run to run.
TOLERANCE = 0.03
BUILD_S_MAX = 600
RUN_S_MAX = 120
ROUNDS = 20

PROGRAM = ROOT / "target" / "release" / "delivery"

# Name of each case, and the words that ask `delivery` for it.
CASES: dict[str, tuple[str, str, str]] = {
    **{
        f"{shown} QoS {qos}": (shape, str(qos), "311")
        for qos in (0, 1, 2)
        for shown, shape in (("50→1", "fan-in"), ("1→100", "fan-out"), ("50:50", "pairs"))
    },
    "50→1 QoS 0, MQTT 5.0": ("fan-in", "0", "5"),
    "50:50 QoS 1, MQTT 5.0": ("pairs", "1", "5"),
    "50:50 QoS 0, 8 topics in turn": ("topics", "0", "311"),
    "50:50 QoS 0, one in a read": ("singly", "0", "311"),
    "50:50 QoS 1, one in a read": ("singly", "1", "311"),
}


class Uncounted(Exception):
    """Is raised where nothing can be counted; says why and what would help."""


def toolchain() -> dict[str, str]:
    """Gives all that a count depends on besides the tree.

    Raises:
        Uncounted: A part of it is missing.
    """
    flags = Path("/proc/cpuinfo")
    wide = flags.exists() and "avx2" in flags.read_text(encoding="utf-8")
    return {
        "rustc": _said("rustc", "--version", source="https://rustup.rs"),
        "valgrind": _said("valgrind", "--version", source="apt-get install valgrind"),
        "libc": " ".join(platform.libc_ver()),
        # The C library and memchr take other ways on processors with wider registers.
        "processor": f"{platform.machine()} {'with' if wide else 'without'} AVX2",
    }


def measure(_: int, say: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Counts each case once: a second count would be the same.

    Args:
        say: Is told of each, in a line.

    Returns:
        For each case its count, as one value.

    Raises:
        Uncounted: Valgrind or Rust is missing, or the program does not end well.
    """
    toolchain()
    _run(
        ["cargo", "build", "--release", "--quiet", "-p", "casemate-sim", "--bin", "delivery"],
        BUILD_S_MAX,
    )
    found: dict[str, dict[str, list[float]]] = {}
    for name, words in CASES.items():
        each = count(*words)
        say(f"instructions {name}: {each:,.0f} for each delivery")
        found[name] = {COLUMN: [each]}
    return found


def count(shape: str, qos: str, version: str, rounds: int = ROUNDS) -> float:
    """Counts one case of the program that `measure` builds.

    Returns:
        Instructions for each delivery.
    """
    with tempfile.TemporaryDirectory(prefix="casemate-bench-") as folder:
        written = Path(folder) / "callgrind"
        said = _run(
            [
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={written}",
                "--toggle-collect=delivery::measured",
                str(PROGRAM),
                *(shape, qos, version, str(rounds)),
            ],
            RUN_S_MAX,
        )
        totals = re.search(r"^(?:totals|summary): (\d+)", written.read_text("utf-8"), re.MULTILINE)
    if totals is None or not int(said):
        raise Uncounted(f"nothing was counted of {shape}: is `measured` still a function there?")
    return round(int(totals[1]) / int(said), 1)


def faults(found: Mapping[str, Mapping[str, list[float]]], kept: Table) -> Iterator[str]:
    """Yields each case that differs from what is kept, cheaper ones too: the table then guards
    nothing any more.

    Args:
        found: As `measure` gives it.
        kept: As an earlier `measure` was kept.
    """
    for name, columns in found.items():
        spread = kept.rows.get(name, {}).get(COLUMN)
        if spread is None:
            yield f"{name} is new"
            continue
        counted, known = columns[COLUMN][0], spread["median"]
        if abs(counted - known) > known * TOLERANCE:
            change = f"{(counted / known - 1) * 100:+.1f} %"
            yield f"{name}: {counted:,.0f} for each delivery, {known:,.0f} are kept ({change})"
    for name in kept.rows:
        if name not in found:
            yield f"{name} is not counted any more"


# Inside


def _said(program: str, word: str, source: str) -> str:
    if shutil.which(program) is None:
        raise Uncounted(f"{program} is not installed ({source})")
    return _run([program, word], RUN_S_MAX).strip()


def _run(command: list[str], seconds: int) -> str:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Uncounted(f"{command[0]} did not end well: {error}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
        raise Uncounted(f"{' '.join(command[:3])} failed: {words[-1][:200]}")
    return done.stdout
