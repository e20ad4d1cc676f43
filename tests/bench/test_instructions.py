"""What one delivered message may cost the engine, in instructions of the processor."""

from __future__ import annotations

import pytest

from bench import instructions, results
from bench.instructions import CASES, COLUMN, Uncounted, faults
from bench.results import Table

# The first test builds the program where nobody has.
pytestmark = pytest.mark.timeout(900)


def kept() -> Table:
    found = results.read()[instructions.SUITE]
    assert isinstance(found, Table)
    return found


def test_a_delivery_costs_the_instructions_that_are_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = kept()
    try:
        present = instructions.toolchain()
    except Uncounted as reason:
        pytest.skip(f"instructions are not guarded here: {reason}")
    if present != known.machine["toolchain"]:
        words = f"kept of {known.machine['toolchain']}, here is {present}"
        with capsys.disabled():
            print(f"\ninstructions are not guarded here: {words}")
        pytest.skip(f"instructions are not guarded here: {words}")
    wrong = list(faults(instructions.measure(1, lambda _: None), known))
    renew = f'make bench ARGUMENTS="--suites {instructions.SUITE}" keeps what is meant'
    assert not wrong, "\n".join([*wrong, renew])


def test_what_is_dearer_or_cheaper_or_new_or_gone_is_named() -> None:
    spread = {"median": 1_000.0, "least": 1_000.0, "most": 1_000.0}
    rows: dict[str, dict[str, dict[str, float] | None]] = {
        name: {COLUMN: spread} for name in ("equal", "dearer", "cheaper", "gone")
    }
    table = Table(instructions.SUITE, {}, 1, rows)
    found = {"equal": 1_029.0, "dearer": 1_031.0, "cheaper": 969.0, "new": 1.0}
    wrong = list(faults({name: {COLUMN: [value]} for name, value in found.items()}, table))
    assert wrong == [
        "dearer: 1,031 for each delivery, 1,000 are kept (+3.1 %)",
        "cheaper: 969 for each delivery, 1,000 are kept (-3.1 %)",
        "new is new",
        "gone is not counted any more",
    ]


def test_two_counts_are_the_same() -> None:
    try:
        instructions.toolchain()
        if not instructions.PROGRAM.exists():
            instructions.measure(1, lambda _: None)
    except Uncounted as reason:
        pytest.skip(f"instructions are not guarded here: {reason}")
    words = CASES["50→1 QoS 1"]
    first, second = instructions.count(*words), instructions.count(*words)
    assert first == pytest.approx(second, rel=0.001)


def test_what_is_missing_is_named_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Uncounted, match="rustc is not installed"):
        instructions.toolchain()


def test_a_program_that_fails_is_told_with_its_own_words() -> None:
    with pytest.raises(Uncounted, match="failed"):
        instructions.count("nowhere", "0", "311")
