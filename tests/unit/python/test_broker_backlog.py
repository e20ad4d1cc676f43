"""What waits for a reader of events: bounded, in order, refusals as one, gaps in their place."""

from __future__ import annotations

import pytest

from casemate.broker import Denied, Event, Missed, SessionChanged
from casemate.broker.backlog import Backlog


def denied(name: str, topic: str, time_unix_ms: int = 0) -> Denied:
    return Denied(
        time_unix_ms=time_unix_ms,
        listener="tls",
        address="192.0.2.1:1",
        client_id=name,
        name=name,
        action="publish",
        topic=topic,
        roles=(),
        reason="no",
        reason_code=0x87,
    )


def session(name: str) -> SessionChanged:
    return SessionChanged(
        time_unix_ms=0, listener=None, address=None, client_id=name, name=name, change="made"
    )


def test_a_flood_of_refusals_becomes_one_event_for_each_peer() -> None:
    """Goal: a flood leaves room, and none of it goes uncounted. Method: topics without end."""
    backlog = Backlog((Event,), 10)
    backlog.put(denied(f"t{number % 3}", f"topic/{number}") for number in range(30_000))
    backlog.put([session("a")])
    *flood, last = backlog.take(100)
    assert isinstance(last, SessionChanged)
    counts = [one.count for one in flood if isinstance(one, Denied)]
    # Five as they are, then one for each of three peers.
    assert counts[:5] == [1] * 5
    assert len(counts) == 8
    assert sum(counts) == 30_000
    assert backlog.missed_total == 0


def test_refusals_of_one_topic_become_one_event() -> None:
    backlog = Backlog((Event,), 10)
    backlog.put([denied("a", "x"), denied("a", "y"), denied("b", "x"), denied("a", "x", 7)])
    events = [one for one in backlog.take(10) if isinstance(one, Denied)]
    assert [(one.name, one.topic, one.count) for one in events] == [
        ("a", "x", 2),
        ("a", "y", 1),
        ("b", "x", 1),
    ]
    assert events[0].time_unix_ms == 7


def test_what_does_not_fit_is_counted_and_stands_in_its_place() -> None:
    backlog = Backlog((Event,), 3)
    backlog.put(session(str(number)) for number in range(5))
    assert [one.client_id for one in backlog.take(2) if isinstance(one, SessionChanged)] == [
        "0",
        "1",
    ]
    backlog.put([session("5")])
    rest = backlog.take(10)
    assert [type(one) for one in rest] == [SessionChanged, Missed, SessionChanged]
    assert isinstance(rest[1], Missed)
    assert rest[1].count == 2
    backlog.put([], missed=7)
    (gap,) = backlog.take(10)
    assert isinstance(gap, Missed)
    assert gap.count == 7
    assert backlog.take(10) == []


@pytest.mark.parametrize("room", [1, 2, 3, 10])
def test_whatever_is_taken_and_missed_adds_up(room: int) -> None:
    backlog = Backlog((Event,), room)
    sent = total = 0
    for turn in range(1_000):
        burst = turn * 7 % 13
        backlog.put(session(str(sent + number)) for number in range(burst))
        sent += burst
        for event in backlog.take(turn * 5 % 11):
            if isinstance(event, Missed):
                total += event.count
            elif isinstance(event, SessionChanged):
                assert event.client_id == str(total), "in order, and gaps where they belong"
                total += 1
    for event in backlog.take(10 * room):
        total += event.count if isinstance(event, Missed) else 1
    assert total == sent


def test_a_backlog_keeps_only_what_is_wanted_and_at_least_one() -> None:
    backlog = Backlog((Denied,), 3)
    assert not backlog.put([session("a")])
    assert backlog.put([denied("a", "b")])
    with pytest.raises(ValueError, match="at least 1"):
        Backlog((Event,), 0)
