"""What the disk of a run does: which file system it is, and how long it takes to sync a record."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.machine import ROOT

# Data of brokers that keep it: beside what was built, so that it is on a disk and not in memory.
PLACE = ROOT / "target" / "bench" / "data"

# Of a message of 64 bytes with its topic, as a log that syncs each one alone would write it.
RECORD_BYTES = 192
# Syncs of one look, some hundredths of a second on a quiet disk.
SYNCS = 200
_MEMORY = ("tmpfs", "ramfs")


def file_system(folder: Path = PLACE) -> str:
    """Gives the file system that a folder is on, as `ext4 on /dev/vda`.

    Raises:
        RuntimeError: It is memory, and nothing there is a disk's figure; or nobody knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    best, found = -1, ("", "")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, behind = line.partition(" - ")
        point = Path(before.split()[4])
        # The last of those that are mounted at one place is the one that is seen.
        if folder.resolve().is_relative_to(point) and len(point.parts) >= best:
            kind, source = behind.split()[:2]
            best, found = len(point.parts), (kind, source)
    kind, source = found
    if kind in _MEMORY:
        raise RuntimeError(f"{folder} is in memory ({kind}): a sync there costs nothing")
    if not kind:
        raise RuntimeError(f"nobody knows which file system {folder} is on")
    return f"{kind} on {source}"


def syncs_us(count: int = SYNCS, folder: Path = PLACE) -> list[float]:
    """Appends records to a file and syncs it after each, as a broker with one client would.

    Args:
        count: How many, 2 or more.
        folder: On the disk that is looked at.

    Returns:
        Microseconds of each append with its `fdatasync`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record, taken = os.urandom(RECORD_BYTES), []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(count):
            from_ns = time.perf_counter_ns()
            file.write(record)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter_ns() - from_ns) / 1_000)
    return taken


def quantiles_us(taken: list[float]) -> tuple[float, float]:
    """Gives p50 and p99 of 2 or more, in microseconds."""
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return round(cuts[49], 1), round(cuts[98], 1)
