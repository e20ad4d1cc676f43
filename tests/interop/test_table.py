"""docs/interop.md says what came of the matrix; run after it."""

from __future__ import annotations

import pytest

from tests.interop.conftest import (
    DESELECTED,
    OUTCOMES,
    REQUIRED,
    committed_is_to_be_written,
)
from tests.interop.results import BEGIN, CASES, END, PAPER, tables


def test_the_table_in_the_paper_is_what_ran(request: pytest.FixtureRequest) -> None:
    outcomes = request.config.stash[OUTCOMES]
    wanted = {str(case) for case in CASES if case.reason_against is None}
    if left_out := wanted - set(outcomes):
        reason = f"{len(left_out)} of {len(wanted)} cases did not run: {min(left_out)} …"
        if REQUIRED and not request.config.stash[DESELECTED]:
            pytest.fail(reason)
        pytest.skip(reason)
    text = PAPER.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin
    assert end
    fresh = f"{before}{BEGIN}\n\n{tables(outcomes)}\n{END}{after}"
    if committed_is_to_be_written(request.config):
        PAPER.write_text(fresh, encoding="utf-8")
    else:
        assert text == fresh, "run: pytest tests/interop --write-table"
