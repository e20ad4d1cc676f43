"""Drain under load: the end comes in the middle of everything, and no promise is broken."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from casemate.errors import Refused
from tests.resilience.load import READER, WRITERS, Ledger, Scene, read, write
from tests.unit.python.commands import Running
from tests.unit.python.test_reload import free_port

_SERVER_SHUTTING_DOWN = 0x8B
_PROMISES = 2_000
"""So many acknowledgements there are before the end is asked for."""


async def end_in_the_middle(scene: Scene, broker: Running) -> Ledger:
    """Sends SIGTERM while publishers publish; waits until everybody was sent away."""
    ledger, over = Ledger(), asyncio.Event()
    reader = scene.client(READER)
    await reader.connect()
    await reader.subscribe("load/#", qos=2)
    reading = asyncio.create_task(read(reader, ledger))
    writers = [
        asyncio.create_task(write(scene, name, qos, ledger, over))
        for name in WRITERS
        for qos in (1, 2)
    ]
    await ledger.until(lambda: ledger.promised >= _PROMISES)
    async with asyncio.timeout(60):
        broker.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*writers)
        await reading
    return ledger


def require_kept(ledger: Ledger) -> None:
    assert ledger.missing() == set()
    assert ledger.doubled() == set()
    assert len(ledger.acknowledged[1]) > 0
    assert len(ledger.acknowledged[2]) > 0
    reasons = {one.reason_code for one in ledger.lost if isinstance(one, Refused)}
    assert reasons == {_SERVER_SHUTTING_DOWN}, ledger.lost


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_what_was_acknowledged_arrives_before_the_end(tmp_path: Path, shards: int) -> None:
    scene = Scene(tmp_path, free_port(), f"shards = {shards}", "drain_s = 30")
    with scene.served() as broker:
        ledger = asyncio.run(end_in_the_middle(scene, broker))
        assert broker.end() == 0, broker.text
    require_kept(ledger)
    print(f"{ledger.promised} messages were acknowledged, none is missing")


@pytest.mark.soak
def test_what_was_acknowledged_arrives_before_each_of_twenty_ends(tmp_path: Path) -> None:
    scene = Scene(tmp_path, free_port(), "shards = 2", "drain_s = 30")
    for _ in range(20):
        with scene.served() as broker:
            ledger = asyncio.run(end_in_the_middle(scene, broker))
            assert broker.end() == 0, broker.text
        require_kept(ledger)
