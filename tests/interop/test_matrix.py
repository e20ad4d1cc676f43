"""The clients of others against a lab: each version, transport and scenario.

`pytest tests/interop --write-table` writes what came of it to docs/interop.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.interop.clients import Kind, Running
from tests.interop.conftest import RunningLab
from tests.interop.results import CASES, Case
from tests.interop.scenarios import Stage


@pytest.fixture(scope="module")
def peers(ready_kind: Callable[[Kind], None]) -> Iterator[Callable[[Kind], Running]]:
    """Starts each client's program once; skips or fails where it could not be installed."""
    started: dict[str, Running] = {}

    def start(kind: Kind) -> Running:
        ready_kind(kind)
        if kind.folder not in started:
            started[kind.folder] = Running(kind)
        return started[kind.folder]

    yield start
    for one in started.values():
        one.stop()


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in CASES])
def test_a_client_of_others_is_served(
    lab: RunningLab, peers: Callable[[Kind], Running], case: Case
) -> None:
    if case.reason_against:
        pytest.skip(f"{case.kind.name} cannot: {case.reason_against}")
    stage = Stage(lab, peers(case.kind), case.version, case.transport)
    try:
        case.scenario.play(stage)
    finally:
        stage.end()
