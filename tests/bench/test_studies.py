"""Studies: more than one load at a time against a real broker; how fast is not tested here."""

from __future__ import annotations

import math
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import (
    churn,
    machine,
    overload,
    page,
    pair,
    peers,
    picture,
    results,
    retained,
)
from bench.beside import beside
from bench.measure import Settings
from bench.peers import FLOOR, OURS, Peer, Reach
from bench.study import Found, Study
from bench.wire import Wire, dropped, message

pytestmark = pytest.mark.timeout(300)

TINY = Settings(rounds=1, seconds=0.3, warm_up_s=0.0)
TOPIC = "users/some/bench"


def quiet(_: str) -> None:
    """Hears each line and says nothing."""


@pytest.fixture(scope="module")
def reach() -> Iterator[Reach]:
    """One broker for what does not need a fresh one."""
    with OURS.serving() as reached:
        yield reached


def with_mosquitto() -> list[Peer]:
    """Ours, and mosquitto where it is installed."""
    theirs = [peer for peer in peers.PEERS if peer.name == "mosquitto"]
    return [OURS, *theirs] if shutil.which("mosquitto") else [OURS]


# The wire


def test_a_wire_publishes_subscribes_and_takes_its_filters_back(reach: Reach) -> None:
    filters = [f"{TOPIC}/{number}" for number in range(250)]
    with Wire(reach, "bench-a") as one, Wire(reach, "bench-b") as other:
        one.subscribe(filters)
        for topic in (filters[0], filters[249]):
            other.publish(topic, b"x" * 300)
        messages = one.messages()
        expected = [(False, filters[at].encode(), b"x" * 300) for at in (0, 249)]
        assert [next(messages) for _ in range(2)] == expected
        one.unsubscribe(filters[:249])
        other.publish(filters[0], b"nobody hears it")
        other.publish(filters[249], b"last")
        assert list(one.arrived()) == [b"last"]


def test_a_wire_says_what_the_broker_refuses(reach: Reach) -> None:
    with pytest.raises(RuntimeError, match="refuses bench-a: return code"):
        Wire(Reach(reach.pid, (), reach.port, {"some": "wrong"}), "bench-a")
    with Wire(reach, "bench-a") as one, pytest.raises(RuntimeError, match="refused a subscr"):
        one.subscribe(["users/all/#"])
    with pytest.raises(OSError, match="refused"):
        Wire(Reach(reach.pid, (), 1), "bench-a")


@pytest.mark.parametrize("peer", with_mosquitto(), ids=lambda peer: peer.name)
def test_a_broker_says_how_many_messages_it_dropped(peer: Peer) -> None:
    with peer.serving() as reached:
        assert dropped(reached) == 0


# What runs beside


def test_the_pair_feels_each_message_while_the_block_runs(reach: Reach) -> None:
    with pair.talking(reach) as talk, Wire(reach, "bench-listens") as other:
        other.subscribe([pair.TOPIC])
        other.count(20)
        assert talk.felt == []
    came, never = talk.between(-math.inf, math.inf)
    assert len(came) >= 20
    assert never == 0
    assert min(came) > 0
    moments = [at for at, _ in talk.felt]
    assert moments == sorted(moments)
    assert talk.between(moments[3], moments[5]) == ([took for _, took in talk.felt[3:5]], 0)


def test_what_cannot_run_beside_says_its_last_words(reach: Reach) -> None:
    with (
        pytest.raises(RuntimeError, match="refuses bench-pair-to"),
        pair.talking(Reach(reach.pid, (), reach.port, {"some": "wrong"})),
    ):
        pytest.fail("it ran")
    with pytest.raises(RuntimeError, match="No module named"), beside("bench.nowhere", reach):
        pytest.fail("it ran")


def test_a_message_that_never_came_is_counted_and_has_no_latency() -> None:
    talk = pair.Pair([(1.0, 10.0), (2.0, None), (3.0, 30.0)])
    assert talk.between(1.0, 3.0) == ([10.0], 1)
    assert pair.percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert pair.percentile([float(number) for number in range(1, 201)], 0.99) == 198.0


# Studies


def test_a_study_takes_turns_and_notes_what_goes_wrong_once() -> None:
    order: list[str] = []

    def good() -> Found:
        order.append("good")
        return {"a": 1.0}

    def bad() -> Found:
        order.append("bad")
        raise peers.Missing("it is gone")

    study = Study("some", ("a", "b"), Settings(rounds=2), quiet)
    study.add("good", good)
    study.add("bad", bad)
    study.carry_out()
    assert order == ["good", "bad"] * 2
    assert study.rows == {"good": {"a": [1.0, 1.0], "b": []}, "bad": {"a": [], "b": []}}
    assert study.notes == ["bad: it is gone"]


def test_each_broker_is_overloaded_and_what_came_of_it_is_kept_drawn_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(overload, "OFFERED", (3.0,))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    program._study("overload", [FLOOR, *with_mosquitto()], {}, TINY)
    (table,) = results.read(tmp_path).values()
    assert isinstance(table, results.Table)
    assert table.machine["notes"] == []
    names = [f"{peer.name}, QoS {qos}" for peer in with_mosquitto() for qos in (0, 1)]
    parts = ("pair alone", "3 ×")
    assert list(table.rows) == [f"{name}, {part}" for name in names for part in parts]
    for row, columns in table.rows.items():
        assert all(columns.values()), row
        (offered, delivered) = (columns[name] for name in (overload.OFFER, overload.GOODPUT))
        assert offered
        assert delivered
        assert (offered["median"] > 0) == (delivered["median"] > 0) == ("alone" not in row)
    kept = results.read(tmp_path)
    written = page.filled("<!-- measured: overload -->\n<!-- end -->", kept)
    assert "![" in written
    assert "| **casemate, QoS 0, 3 ×** |" in written
    ((suite, drawn),) = page.drawings(kept)
    assert suite == "overload"
    root = ET.fromstring(drawn)  # noqa: S314 - our own picture.
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2 * len(names)


def test_a_subscriber_that_never_reads_is_measured_beside_those_that_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # More than the kernel holds for it, and so little that even a slow machine reads the rest.
    monkeypatch.setattr(overload, "STEADY_PER_S", 300.0)
    study = overload.slow_reader([FLOOR, OURS], Settings(seconds=1.0, rounds=1), quiet)
    assert study.notes == []
    assert list(study.rows) == ["casemate, all read", "casemate, one never reads"]
    read, held = study.rows.values()
    # Those that read have all of it; for the other one the broker holds what its queue may hold.
    assert read[overload.LOST] == held[overload.LOST] == [0]
    assert read[overload.DROPPED] == [0]
    assert held[overload.MEMORY][0] > read[overload.MEMORY][0]


def test_retained_messages_are_stored_and_replayed_by_each_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retained, "STORED", 2_000)
    brokers = with_mosquitto()
    study = retained.measure([FLOOR, *brokers], TINY, quiet)
    assert study.notes == []
    assert list(study.rows) == [peer.name for peer in brokers]
    for columns in study.rows.values():
        assert list(columns) == list(retained.COLUMNS)
        assert all(value > 0 for values in columns.values() for value in values)
        assert all(len(values) == 1 for values in columns.values())


def test_a_replay_is_counted_and_one_that_is_refused_is_said(reach: Reach) -> None:
    kept = [f"{TOPIC}/kept/{number}" for number in range(3)]
    with Wire(reach, "bench-stores") as storing, Wire(reach, "bench-replays") as new:
        storing.send(b"".join(message(topic, b"x", retain=True) for topic in kept))
        storing.settle()
        new.replay(f"{TOPIC}/kept/#", 3)
        with pytest.raises(RuntimeError, match="refused a subscription"):
            new.replay("#", 1)
        storing.send(b"".join(message(topic, b"", retain=True) for topic in kept))


def test_subscriptions_are_measured_still_and_while_others_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(churn, "TOTALS", (10, 1_000))
    monkeypatch.setattr(churn, "WEIGHED_FROM", 1_000)
    study = churn.measure([FLOOR, *with_mosquitto()], TINY, quiet)
    assert study.notes == []
    names = [peer.name for peer in with_mosquitto()]
    rows = [f"{total}, {how}" for total in ("10", "1,000") for how in ("still", "others change")]
    rows.append("10 of 1,000 in use")
    assert list(study.rows) == [f"{name}, {row}" for name in names for row in rows]
    for row, columns in study.rows.items():
        assert columns[churn.COST][0] > 0
        assert bool(columns[churn.CHANGES]) == row.endswith("change")
        assert all(value >= churn.CHANGED for value in columns[churn.CHANGES])
        assert bool(columns[churn.MEMORY]) == ("1,000, " in row)


def test_no_message_of_the_load_answers_a_filter_that_comes_and_goes() -> None:
    for change in range(3):
        filters = churn._filters(change)
        assert len(set(filters)) == churn.CHANGED
        assert sum("+" in one for one in filters) == churn.CHANGED // 5
        # Topics of the load end with a number, below a publisher and a room.
        assert all("/new-" in one for one in filters)


def test_a_note_and_who_is_missing_stand_below_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def study(*_: object) -> Study:
        return Study("overload", (), TINY, quiet, {"a": {"b": [1.0]}}, ["a: it broke"])

    monkeypatch.setattr(program, "STUDIES", {"retained": study})
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    program._study("retained", [], {"x": {"title": "X", "missing": "nobody has it"}}, TINY)
    written = page.filled("<!-- measured: retained -->\n<!-- end -->", results.read(tmp_path))
    assert "*X is missing: nobody has it.*\n\n*a: it broke.*" in written
    assert "1 rounds of 0.3 s" in written


def test_curves_are_well_formed_whatever_their_values() -> None:
    line = {"<a>": [(0.0, 0.0), (1.0, 0.5), (3.0, 7.0)], "none": []}
    panels = [
        picture.Panel("<b>", "c&d", line, logarithmic=logarithmic) for logarithmic in (False, True)
    ]
    for drawn in (picture.curves("<t>", panels), picture.curves("empty", [])):
        ET.fromstring(drawn)  # noqa: S314 - our own picture.
    # A logarithm has no place for 0.
    assert picture.curves("t", panels).count("<circle") == 2 + 3 + 2
    assert "<b>" not in picture.curves("t", panels)


def test_the_memory_and_the_time_of_a_process_that_is_gone_are_not_known() -> None:
    for ask in (machine.memory_bytes, machine.cpu_s):
        with pytest.raises(RuntimeError, match="is gone"):
            ask(2**22 + 1)
