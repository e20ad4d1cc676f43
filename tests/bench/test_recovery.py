"""A start with what is kept: all is there again, and the client that was away gets its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import keepers, recovery
from bench.measure import Settings
from bench.peers import FLOOR
from bench.wire import WINDOW, Wire, numbered

pytestmark = pytest.mark.timeout(300)

ONCE = Settings(rounds=1)


def quiet(_: str) -> None:
    """Hears each line and says nothing."""


def test_a_start_is_measured_with_what_waits_for_one_and_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "SESSIONS", 31)
    monkeypatch.setattr(recovery, "CROWD", 20)
    monkeypatch.setattr(recovery, "QUEUED", 2_500)
    study = recovery.measure([FLOOR, keepers.DISK], ONCE, quiet)
    assert study.notes == []
    one, all_of_them = study.rows.values()
    assert all(len(values) == 1 and values[0] > 0 for values in one.values())
    assert one[recovery.ACCEPTED][0] <= one[recovery.ADMITTED][0]
    # Nobody comes back there for all of it.
    assert (all_of_them[recovery.FETCHED], len(all_of_them[recovery.ADMITTED])) == ([], 1)


def test_nothing_is_measured_where_ours_does_not_take_part() -> None:
    study = recovery.measure([FLOOR, keepers.MEMORY], ONCE, quiet)
    assert (study.rows, study.notes) == ({}, [])


def test_what_was_queued_for_each_session_reaches_it_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "SESSIONS", 8)
    monkeypatch.setattr(recovery, "CROWD", 4)
    monkeypatch.setattr(recovery, "QUEUED", 70)
    with recovery._filled(spread=True, say=quiet) as house, house.served() as reach:
        for session in range(7):
            first = session - session % 4
            name = f"away{first}-{session - first}"
            with Wire(reach, name, f"crowd{first}", lasting=True) as wire:
                assert wire.resumed
                topic = recovery.topic_of(first, session).encode()
                got = [body for _, said, body in take(wire, 10) if said == topic]
                # The packet id stands before the payload.
                assert [body[2:] for body in got] == [numbered(session + 7 * n) for n in range(10)]


def take(wire: Wire, count: int) -> list[tuple[bool, bytes, bytes]]:
    messages = wire.messages()
    return [next(messages) for _ in range(count)]


def test_a_message_that_is_not_the_next_one_is_noticed() -> None:
    with keepers.MEMORY.serving() as reach:
        topic = recovery.TOPIC
        with Wire(reach, "away", lasting=True) as away:
            assert not away.resumed
            away.subscribe([topic], 1)
        with Wire(reach, "fills") as wire:
            wire.keep((topic, numbered(number)) for number in range(2 * WINDOW + 3))
            wire.keep([(topic, numbered(1))])
        with Wire(reach, "away", lasting=True) as away:
            assert away.resumed
            away.fetch(topic, 2 * WINDOW + 3)
            with pytest.raises(RuntimeError, match="is not what it should be"):
                away.fetch(topic, 1)


def test_the_store_of_a_run_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "SESSIONS", 2)
    monkeypatch.setattr(recovery, "QUEUED", 1)
    kept: list[Path] = []
    with recovery._filled(spread=False, say=quiet) as house:
        assert recovery._once(house, spread=False)[recovery.RATE] > 0
        kept = [house.folder, house.folder.with_name(f"{house.folder.name}-again")]
        assert [one.exists() for one in kept] == [True, False]
    assert not kept[0].exists()
