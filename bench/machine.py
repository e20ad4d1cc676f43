"""Says on what machine and of which tree something was measured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

BROKER_CORE = 0
GENERATOR_CORE = 1


def describe() -> dict[str, Any]:
    """Gives what a reader must know to compare figures: machine, system, tree, moment."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _git("rev-parse", "--short=10", "HEAD") or "unknown",
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "pinned": is_pinned(),
    }


def load_average() -> float:
    """Gives how many programs wanted to run in the last minute, all cores together."""
    return round(os.getloadavg()[0], 2)


def memory_bytes(pid: int, *, most: bool = False) -> int:
    """Gives the resident memory of a process, now or the most that it ever had.

    Raises:
        RuntimeError: There is no such process.
    """
    wanted = "VmHWM:" if most else "VmRSS:"
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise RuntimeError(f"process {pid} is gone") from error
    for line in status.splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")


def cpu_s(pid: int) -> float:
    """Gives the CPU time of a process and all its threads, in seconds.

    Raises:
        RuntimeError: There is no such process.
    """
    try:
        # The kernel names the CPU clock of a process by its number (clock_getcpuclockid).
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise RuntimeError(f"process {pid} is gone") from error


def is_pinned() -> bool:
    """True where broker and generator can each have a core of their own."""
    return shutil.which("taskset") is not None and (os.cpu_count() or 1) > 1


def on_core(core: int, command: list[str]) -> list[str]:
    """Binds a command to one core where that is possible, so that two do not share one."""
    return ["taskset", "-c", str(core), *command] if is_pinned() else command


@contextmanager
def beside_broker() -> Iterator[None]:
    """Binds this process to the generator's core while the block runs, where that is possible."""
    if not is_pinned():
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {GENERATOR_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
