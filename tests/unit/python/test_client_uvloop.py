"""The client under uvloop, which is stricter about transports that have gone than asyncio's loop.

The tests of misbehaving brokers run once more, each in a fresh uvloop; the fixtures' own test does
the same against the real broker.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.unit.python import test_client_protocol, test_client_websocket

CASES = [
    pytest.param(case, id=name.removeprefix("test_"))
    for module in (test_client_protocol, test_client_websocket)
    for name, case in vars(module).items()
    if name.startswith("test_")
    and inspect.iscoroutinefunction(case)
    and not inspect.signature(case).parameters
]


@pytest.mark.parametrize("case", CASES)
def test_the_same_holds_under_uvloop(case: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(case())


def test_there_is_something_to_run() -> None:
    assert len(CASES) > 20
