"""Proves that a statement's test runs through the line that enforces it.

Each tagged test is run alone, built with LLVM's source coverage for our crates only; a statement
is proven when the line under its tag was executed. What was proven is written down with a digest
of that line, so that a changed line, or a test that lost its tag, makes the proof stale.

A tag in a row of a table names no test of its own. The tests that run the table are then run once
for each statement, with its identifier in the environment as CASEMATE_STATEMENT, so that they take
the rows of that statement alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from spec_tags import ENFORCING, Place, Tags

# An entry: which test ran through which line of which file.
Book = dict[str, dict[str, str]]

TEST_SECONDS_MAX = 900
# How far below its tag the first counted line may stand: a signature may span many lines.
LINES_BELOW_TAG = 4
LINES_BELOW_SIGNATURE = 16


@dataclass(frozen=True)
class Program:
    """One test executable of one crate; `source` is the file that it was built from."""

    crate: str
    is_library: bool
    source: Path
    path: Path


@dataclass(frozen=True, order=True)
class Run:
    """One test to run; `home` is its file or crate, `statement` is set for rows of a table."""

    home: str
    test: str
    statement: str


def read(path: Path) -> Book:
    """Reads what was proven; nothing where the file does not exist yet."""
    if not path.exists():
        return {}
    book: Book = json.loads(path.read_text(encoding="utf-8"))
    return book


def holds(identifier: str, tags: Tags, book: Book) -> bool:
    """Says whether a proof on record still fits the line and the test of today."""
    entry = book.get(identifier)
    if entry is None:
        return False
    lines = {(place.path, place.digest) for place in tags.places.get(identifier, [])}
    tests = {test for proof in tags.proofs.get(identifier, []) for test in proof.tests}
    return (entry["file"], entry["line"]) in lines and entry["test"] in tests


def prove(root: Path, identifiers: list[str], tags: Tags, path: Path) -> None:
    """Runs the tests of every statement that has no valid proof, and writes down what is proven.

    Args:
        root: The tree, whose workspace cargo builds.
        identifiers: Statements that have a line and a test.
        tags: All tags of the tree.
        path: Where proofs are written; entries that no longer hold are removed.

    Raises:
        CalledProcessError: The instrumented build failed, or LLVM's tools did.
        FileNotFoundError: The tools are missing: `rustup component add llvm-tools`.
    """
    book = {name: entry for name, entry in read(path).items() if holds(name, tags, {name: entry})}
    wanted = [name for name in identifiers if name not in book]
    runs = {name: _runs(name, tags) for name in wanted}
    crates = sorted({run.home.split("/")[1] for found in runs.values() for run in found})
    if crates:
        tools = llvm_tools()
        programs = build(root, crates)
        print(f"specmap: {len(wanted)} statements to prove")
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(root, programs, tools, Path(scratch))
            with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
                entries = pool.map(lambda name: bench.entry(runs[name], tags.places[name]), wanted)
                for name, entry in zip(wanted, entries, strict=True):
                    if entry is not None:
                        book[name] = entry
    path.write_text(json.dumps(dict(sorted(book.items())), indent=1) + "\n", encoding="utf-8")


def llvm_tools() -> Path:
    """Returns the folder of the toolchain's own llvm-profdata and llvm-cov.

    Raises:
        FileNotFoundError: The component is not installed.
    """
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = next(line.split()[1] for line in said.splitlines() if line.startswith("host:"))
    command = ["rustc", "--print", "sysroot"]
    sysroot = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    folder = Path(sysroot) / "lib" / "rustlib" / host / "bin"
    if not (folder / "llvm-cov").exists():
        raise FileNotFoundError("llvm-cov is missing: rustup component add llvm-tools")
    return folder


def build(root: Path, crates: list[str]) -> list[Program]:
    """Builds the test executables of some crates, with our crates instrumented.

    The wrapper sees our crates only, so dependencies are the ones of an ordinary `cargo test`.
    """
    wrapper = root / "target" / "specmap" / "rustc"
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    wrapper.write_text('#!/bin/sh\nexec "$@" -Cinstrument-coverage\n')
    wrapper.chmod(0o755)
    command = ["cargo", "test", "--no-run", "--message-format", "json-render-diagnostics"]
    for crate in crates:
        command += ["--package", f"casemate-{crate}"]
    environment = {**os.environ, "RUSTC_WORKSPACE_WRAPPER": str(wrapper)}
    # Build scripts and macros of ours would else leave their profiles in the tree.
    environment["LLVM_PROFILE_FILE"] = os.devnull
    said = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return list(_programs(said.stdout))


def _programs(messages: str) -> Iterator[Program]:
    for line in messages.splitlines():
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message.get("executable"):
            continue
        if not message["profile"]["test"]:
            continue
        target = message["target"]
        crate = Path(message["manifest_path"]).parent.name
        is_library = "test" not in target["kind"]
        yield Program(crate, is_library, Path(target["src_path"]), Path(message["executable"]))


def _runs(name: str, tags: Tags) -> list[Run]:
    """Returns what may prove a statement, a test of its own before the tables it stands in."""
    found = []
    for proof in sorted(tags.proofs[name], key=lambda proof: not proof.name):
        if not proof.path.startswith("crates/"):
            continue
        # A table is run from wherever its runners stand: its crate is all that is known.
        home = proof.path if proof.name else "/".join(proof.path.split("/")[:2])
        found += [Run(home, test, "" if proof.name else name) for test in proof.tests]
    return list(dict.fromkeys(found))


# Executed lines: file → line → how often.
Covered = dict[str, dict[int, int]]


class Bench:
    """Runs tests alone, each at most once, and reads which lines they came through."""

    def __init__(self, root: Path, programs: list[Program], tools: Path, scratch: Path) -> None:
        self.root = root
        self.programs = programs
        self.tools = tools
        self.scratch = scratch
        self._reports: dict[Run, Covered] = {}
        # Tests that have proven something: a table's true runner is tried before its neighbours.
        self._worth: dict[str, int] = {}

    def entry(self, runs: list[Run], places: list[Place]) -> dict[str, str] | None:
        """Runs until one run comes through one of the places; None where none does."""
        for run in sorted(runs, key=lambda run: (bool(run.statement), -self._value(run))):
            covered = self._covered(run)
            for place in places:
                if executed(place, covered):
                    self._worth[run.test] = self._value(run) + 1
                    return {"test": run.test, "file": place.path, "line": place.digest}
        return None

    def _value(self, run: Run) -> int:
        return self._worth.get(run.test, 0)

    def _covered(self, run: Run) -> Covered:
        if run in self._reports:
            return self._reports[run]
        covered: Covered = {}
        quiet = {**os.environ, "LLVM_PROFILE_FILE": os.devnull}
        for program in _candidates(run.home, self.root, self.programs):
            listed = subprocess.run(
                [program.path, "--list"], env=quiet, capture_output=True, text=True, check=False
            ).stdout
            for found in re.findall(r"^(.+): test$", listed, re.MULTILINE):
                if found.rsplit("::", 1)[-1] == run.test:
                    _add(covered, self._report(found, program, run.statement))
        self._reports[run] = covered
        return covered

    def _report(self, test: str, program: Program, statement: str) -> Covered:
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            environment = {**os.environ, "LLVM_PROFILE_FILE": f"{folder}/%p-%m.profraw"}
            if statement:
                environment["CASEMATE_STATEMENT"] = statement
            if not _passes(test, program, self.root, environment):
                return {}
            raw = sorted(str(path) for path in Path(folder).glob("*.profraw"))
            if not raw:
                return {}
            merged = f"{folder}/merged.profdata"
            command = [str(self.tools / "llvm-profdata"), "merge", "-sparse", *raw, "-o", merged]
            subprocess.run(command, check=True)
            command = [str(self.tools / "llvm-cov"), "export", str(program.path)]
            command += [f"-instr-profile={merged}", "-format=lcov", "-sources"]
            command += [str(self.root / "crates" / crate / "src") for crate in ENFORCING]
            lcov = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            return parse_lcov(lcov, self.root)


def _add(into: Covered, report: Covered) -> None:
    for name, lines in report.items():
        counts = into.setdefault(name, {})
        for line, count in lines.items():
            counts[line] = counts.get(line, 0) + count


def _candidates(home: str, root: Path, programs: list[Program]) -> list[Program]:
    parts = home.split("/")
    ours = [program for program in programs if program.crate == parts[1]]
    if len(parts) == 2:
        return ours
    if parts[2] == "src":
        return [program for program in ours if program.is_library]
    exact = [program for program in ours if program.source == root / home]
    return exact or [program for program in ours if not program.is_library]


def _passes(test: str, program: Program, root: Path, environment: dict[str, str]) -> bool:
    """Runs one test alone; one that fails or does not end proves nothing, and says so."""
    try:
        ended = subprocess.run(
            [program.path, "--exact", test, "--include-ignored"],
            cwd=root / "crates" / program.crate,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=TEST_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"specmap: {test} took more than {TEST_SECONDS_MAX} s and proves nothing")
        return False
    if ended.returncode != 0:
        print(f"specmap: {test} fails and proves nothing")
        return False
    return True


def parse_lcov(text: str, root: Path) -> Covered:
    """Reads how often each line ran.

    Args:
        text: A report in lcov's format: `SF:` names a file, `DA:` a line and its count.
        root: Folder to which the file names of the result are relative.
    """
    covered: Covered = {}
    lines: dict[int, int] = {}
    for line in text.splitlines():
        if line.startswith("SF:"):
            path = Path(line[3:])
            name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            lines = covered.setdefault(name, {})
        elif line.startswith("DA:"):
            number, count = line[3:].split(",")[:2]
            lines[int(number)] = lines.get(int(number), 0) + int(count)
    return covered


def executed(place: Place, covered: Covered) -> bool:
    """Says whether the first counted line at or just below an enforcing line was executed."""
    lines = covered.get(place.path, {})
    reach = LINES_BELOW_SIGNATURE if place.is_signature else LINES_BELOW_TAG
    for number in range(place.code_line, place.code_line + reach):
        if number in lines:
            return lines[number] > 0
    return False
