"""What was measured, as it is kept in `bench/results/`: one file for each suite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cases import Case
from bench.measure import Figures, Settings, spread

FOLDER = Path(__file__).parent / "results"

# What one broker did in one case, as `Figures.summary` gives it.
Summary = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """Holds one suite.

    Attributes:
        suite: Its name.
        machine: As `machine.describe` gives it.
        settings: Rounds and times.
        peers: Name of each broker and what is known of it: title, version or why it is missing.
        cases: Name of each case and what each broker did in it.
    """

    suite: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    peers: dict[str, dict[str, str]]
    cases: dict[str, dict[str, Summary]]

    @property
    def shown(self) -> list[str]:
        """Names of the brokers that did anything here."""
        return [name for name in self.peers if any(name in one for one in self.cases.values())]

    @property
    def loads(self) -> tuple[float, float] | None:
        """The least and the highest load average of all runs."""
        spreads = [
            one["load"] for case in self.cases.values() for one in case.values() if one["load"]
        ]
        if not spreads:
            return None
        return min(one["least"] for one in spreads), max(one["most"] for one in spreads)

    def median(self, case: str, peer: str, figure: str = "cost") -> float | None:
        """Gives a median; None where there is none."""
        found = self.cases.get(case, {}).get(peer)
        spread = found and found.get(figure)
        return spread["median"] if spread else None

    def ratio(self, case: str, of: str, to: str) -> float | None:
        """Gives how often the cost of one fits into that of another, both medians of one run."""
        upper, lower = self.median(case, of), self.median(case, to)
        return upper / lower if upper and lower else None


@dataclass(frozen=True)
class Table:
    """Holds what was measured without another broker: of Python, of starts.

    Attributes:
        suite: Its name.
        machine: As `machine.describe` gives it, with the load average at the end.
        rounds: Runs of each figure.
        rows: Name of each row and of each column, and there median, least and most.
    """

    suite: str
    machine: dict[str, Any]
    rounds: int
    rows: dict[str, dict[str, dict[str, float] | None]]


def keep_table(
    suite: str,
    machine: dict[str, Any],
    rounds: int,
    found: Mapping[str, Mapping[str, Sequence[float]]],
    folder: Path | None = None,
) -> Path:
    """Writes a table; otherwise as `keep`."""
    rows = {
        row: {column: spread(values) for column, values in columns.items()}
        for row, columns in found.items()
    }
    return _write(
        {"suite": suite, "machine": machine, "rounds": rounds, "rows": rows}, folder or FOLDER
    )


def keep(
    suite: str,
    machine: dict[str, Any],
    settings: Settings,
    peers: Mapping[str, dict[str, str]],
    measured: Sequence[tuple[Case, dict[str, Figures]]],
    folder: Path | None = None,
) -> Path:
    """Writes a suite; the one that was there before is replaced.

    Returns:
        The file.
    """
    values = {
        "suite": suite,
        "machine": machine,
        "settings": {"rounds": settings.rounds, "seconds": settings.seconds},
        "peers": dict(peers),
        "cases": {
            case.name: {name: one.summary() for name, one in found.items()}
            for case, found in measured
        },
    }
    return _write(values, folder or FOLDER)


def read(folder: Path = FOLDER) -> dict[str, Result | Table]:
    """Reads every suite that there is, by name."""
    found: dict[str, Result | Table] = {}
    for path in sorted(folder.glob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        found[path.stem] = Table(**values) if "rows" in values else Result(**values)
    return found


def _write(values: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{values['suite']}.json"
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
