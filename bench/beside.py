"""Clients that run beside a load, each kind in a process of its own on the generator's core."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench import machine
from bench.peers import Reach

RUN_S_MAX = 300
READY = "ready"


@contextmanager
def beside(module: str, reach: Reach, *words: str) -> Iterator[list[Any]]:
    """Runs `python -m MODULE WORDS` while the block runs.

    Args:
        module: Calls `answer`.
        reach: The broker.
        words: Of its command line.

    Yields:
        A list that holds the answer of the module once the block has ended.

    Raises:
        RuntimeError: It could not; its own last words.
    """
    command = machine.on_core(machine.GENERATOR_CORE, [sys.executable, "-m", module, *words])
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=machine.ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError(f"{module} has no pipes")
            # Not a word of the command line, which others on the machine may read.
            described = {"pid": reach.pid, "port": reach.port, "proofs": dict(reach.proofs)}
            process.stdin.write(json.dumps(described) + "\n")
            process.stdin.flush()
            if process.stdout.readline() != f"{READY}\n":
                raise RuntimeError(f"{module}: {_last_words(process)}")
            found: list[Any] = []
            yield found
            # Its stdin ends here, and so does what it does.
            said, heard = process.communicate(timeout=RUN_S_MAX)
            if process.returncode != 0:
                raise RuntimeError(f"{module}: {_last_of(heard)}")
            found.append(json.loads(said))
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{module} did not end after {RUN_S_MAX} s") from error
        finally:
            process.kill()


def answer(work: Callable[[Reach], Any]) -> int:
    """Runs the work of such a module and prints what it gives; where the broker is, stdin says."""
    described = json.loads(sys.stdin.readline())
    reach = Reach(described["pid"], (), described["port"], described["proofs"])
    print(json.dumps(work(reach)))  # noqa: T201 - its answer.
    return 0


def begin() -> None:
    """Says that the work has begun, for which `beside` waits."""
    print(READY, flush=True)  # noqa: T201 - a word of the two processes.


def is_over(within_s: float) -> bool:
    """True once the block has ended; waits so long for that."""
    ready, _, _ = select.select([sys.stdin], [], [], max(0.0, within_s))
    return bool(ready)


def _last_words(process: subprocess.Popen[str]) -> str:
    _, words = process.communicate(timeout=RUN_S_MAX)
    return _last_of(words)


def _last_of(words: str) -> str:
    lines = words.strip().splitlines() or ["no word"]
    return lines[-1][:200]
