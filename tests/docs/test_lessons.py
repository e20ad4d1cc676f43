"""The page of lessons names tests: each must exist, and each row must name one or say why not.

Tests are named `path::name`. A row without a test is one whose room does not exist yet.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/lessons.md"

TEST = re.compile(r"`([\w./-]+\.(?:rs|py))::(\w+)`")


def rows() -> list[str]:
    """Returns the rows of the page's tables, without heads and rules."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    return [line for line in tables if not line.endswith("| shown by |") and "---" not in line]


NAMED = sorted({match for row in rows() for match in TEST.findall(row)})


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_each_named_test_exists(path: str, name: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    keyword = "def" if path.endswith(".py") else "fn"
    assert re.search(rf"\b{keyword} {name}\b", source), f"{path} has no test {name}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[2:40])
def test_each_row_names_a_test_or_a_room_that_is_missing(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 3, f"{row} has {len(cells)} cells"
    named = TEST.findall(cells[2])
    stray = TEST.sub("", cells[2]).strip()
    if named:
        assert not stray, f"{stray} names no test"
    else:
        assert cells[2] == "–"
        assert cells[1].endswith("does not exist yet"), f"{row} has neither test nor reason"


def test_every_fault_of_the_page_stands_once() -> None:
    faults = [row.split(" | ")[0] for row in rows()]
    assert len(faults) == len(set(faults))
    assert len(faults) > 40
