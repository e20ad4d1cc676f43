"""What came of the matrix, and how docs/interop.md says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.interop.clients import KINDS, ROOT, Kind
from tests.interop.conftest import TRANSPORTS
from tests.interop.scenarios import SCENARIOS, Scenario

PAPER: Path = ROOT / "docs" / "interop.md"
BEGIN = "<!-- written by pytest tests/interop --write-table -->"
END = "<!-- end of what the tests write -->"

YES, NO = "yes", "**no**"


@dataclass(frozen=True)
class Case:
    """Is one cell of the matrix."""

    kind: Kind
    version: str
    transport: str
    scenario: Scenario

    def __str__(self) -> str:
        """Gives it as the name of a test."""
        return "-".join((self.kind.folder, self.version, self.transport, self.scenario.name))

    def __hash__(self) -> int:
        """Goes by its name."""
        return hash(str(self))

    @property
    def reason_against(self) -> str | None:
        """Why the client cannot do it, or None."""
        return self.kind.reason_against(self.transport, self.scenario.name)


CASES = tuple(
    Case(kind, version, transport, scenario)
    for kind in KINDS
    for version in kind.versions
    for transport in TRANSPORTS
    for scenario in SCENARIOS
    if transport == "tcp" or not (scenario.fifth or scenario.plain)
    if version == "5.0" or not scenario.fifth
)

_ALL = frozenset(CASES)

Outcomes = Mapping[str, bool]
"""Whether each case that ran was served, by its name."""


def tables(outcomes: Outcomes) -> str:
    """Gives the tables of a whole run, and why the rest could not be run."""
    reasons: dict[str, int] = {}
    parts = [
        _transports(outcomes, reasons),
        _sessions(outcomes, reasons),
        _fifth(outcomes, reasons),
        "\n".join(f"{number}. {reason}" for reason, number in reasons.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _transports(outcomes: Outcomes, reasons: dict[str, int]) -> str:
    rows = []
    deliveries = [one for one in SCENARIOS if one.name.startswith("qos")]
    for kind, version in _speakers():
        cells = [
            _cell([Case(kind, version, transport, one) for one in deliveries], outcomes, reasons)
            for transport in TRANSPORTS
        ]
        rows.append([kind.title, version, *("0 1 2" if cell == YES else cell for cell in cells)])
    heading = "### Messages of QoS 0, 1 and 2, by transport\n\n"
    return heading + _table(["client", "MQTT", *TRANSPORTS], rows)


def _sessions(outcomes: Outcomes, reasons: dict[str, int]) -> str:
    scenarios = [one for one in SCENARIOS if not one.fifth and not one.name.startswith("qos")]
    rows = []
    for kind, version in _speakers():
        cells = []
        for scenario in scenarios:
            cases = [Case(kind, version, transport, scenario) for transport in TRANSPORTS]
            # Which transports a client does not speak is told by the table before.
            able = [case for case in cases if case in _ALL and case.transport not in kind.cannot]
            cells.append(_cell(able, outcomes, reasons))
        rows.append([kind.title, version, *cells])
    heading = "### Sessions and rights, over all of these transports\n\n"
    return heading + _table(["client", "MQTT", *(one.title for one in scenarios)], rows)


def _fifth(outcomes: Outcomes, reasons: dict[str, int]) -> str:
    kinds = [kind for kind in KINDS if "5.0" in kind.versions]
    rows = [
        [
            scenario.title,
            *(_cell([Case(kind, "5.0", "tcp", scenario)], outcomes, reasons) for kind in kinds),
        ]
        for scenario in SCENARIOS
        if scenario.fifth
    ]
    heading = "### What MQTT 5.0 added\n\n"
    return heading + _table(["", *(kind.title for kind in kinds)], rows)


def _speakers() -> list[tuple[Kind, str]]:
    return [(kind, version) for kind in KINDS for version in kind.versions]


def _cell(cases: list[Case], outcomes: Outcomes, reasons: dict[str, int]) -> str:
    against = sorted({case.reason_against for case in cases if case.reason_against})
    if against:
        return ", ".join(f"({reasons.setdefault(one, len(reasons) + 1)})" for one in against)
    return YES if all(outcomes[str(case)] for case in cases) else NO


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
