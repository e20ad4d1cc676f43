"""The log: one honest line for each event, whatever a peer wrote, and no flood that drowns it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import logs
from casemate.config import Log
from tests.unit.python.fail2ban import GUIDE, ROOT, banned

CANARY = "\x1b[31m\u202e\r\n\x00\x9b\u2028 address=203.0.113.9 \"'\\"


@dataclass
class Event:
    """Has the shape of the engine's, which only the engine can make."""

    kind: str
    detail: str = ""
    client_id: str = ""
    principal: str = ""
    listener: str | None = "tls"
    address: str | None = "192.0.2.7:41986"
    time_unix_ms: int = 1_790_000_000_123
    shard: int = 0


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("casemate")
    before = (root.handlers[:], root.level, own.level)
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


def written(act: Callable[[], object], **settings: str) -> list[str]:
    """Gives the lines that something writes."""
    stream = io.StringIO()
    logs.begin(Log(**settings), stream)
    act()
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def taken(events: list[Event], **settings: str) -> list[dict[str, Any]]:
    """Gives what a log says of these events in one window, as JSON."""

    def act() -> None:
        log = logs.EventLog()
        for event in events:
            log.take(event)  # type: ignore[arg-type]
        log.flush()

    return [json.loads(line) for line in written(act, format="json", **settings)]


def line(event: Event, form: str) -> str:
    (one,) = written(
        lambda: logs.EventLog().take(event),  # type: ignore[arg-type]
        format=form,
        level="debug",
    )
    return one


@pytest.mark.parametrize(
    ("event", "level", "fields"),
    [
        (Event("connected"), "info", {"session": "new"}),
        (Event("connected", "resumed", principal="t7"), "info", {"principal": "t7"}),
        (Event("disconnected", "KeepAlive"), "info", {"cause": "keep-alive"}),
        (Event("authentication-refused", "Banned"), "warning", {"reason": "Banned"}),
        (Event("publish-denied", "a/b"), "warning", {"topic": "a/b"}),
        (Event("subscribe-denied", "#"), "warning", {"filter": "#"}),
        (Event("handshake-failed", "x", client_id=""), "warning", {"cause": "x"}),
        (Event("accept-failed", "too many files"), "error", {"cause": "too many files"}),
        (Event("connections-full", address=None), "warning", {"address": None, "port": None}),
        (Event("malformed", "x", address="[2001:db8::1]:5"), "warning", {"port": 5}),
        (Event("a-new-kind", "x"), "warning", {"detail": "x"}),
        (
            Event("malformed", "x", address="[::ffff:192.0.2.8]:5"),
            "warning",
            {"address": "192.0.2.8"},
        ),
    ],
)
def test_each_kind_has_its_level_and_its_fields(
    event: Event, level: str, fields: dict[str, Any]
) -> None:
    said = json.loads(line(event, "json"))
    assert list(said)[:6] == ["time", "level", "event", "listener", "address", "port"]
    assert (said["level"], said["event"]) == (level, event.kind)
    assert said["time"] == "2026-09-21T14:13:20.123Z"
    assert {name: said[name] for name in fields} == fields


def test_an_address_is_always_named_on_the_console_too() -> None:
    """Mosquitto #2329, #919: refused logins without an address, so that nobody could be banned."""
    assert " authentication-refused listener=tls address=192.0.2.7 port=41986" in line(
        Event("authentication-refused"), "console"
    )
    assert " listener=run address=- port=-" in line(
        Event("authentication-refused", address=None, listener="run"), "console"
    )


HOSTILE = st.text(max_size=300) | st.sampled_from(
    [CANARY, "\ud800", "\udfff\ud800", "", " ", '"', "\\", "a=b", "x" * 65_535, "\x85", "\u2066"]
)


@given(HOSTILE, HOSTILE)
def test_whatever_a_peer_writes_stays_in_its_place(client: str, detail: str) -> None:
    event = Event("publish-denied", detail, client_id=client)
    shown = line(event, "console")
    assert all(character.isprintable() for character in shown)
    assert shown.startswith(
        "2026-09-21T14:13:20.123Z WARNING publish-denied listener=tls address=192.0.2.7 port=41986"
    )
    assert len(shown) < 8_192
    # Words outside of quotes are the broker's own.
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', shown)
    names = [word.partition("=")[0] for word in bare.split(" ")[3:]]
    assert names[:3] == ["listener", "address", "port"]
    assert set(names[3:]) <= {"client", "topic"}


@given(HOSTILE, HOSTILE)
def test_json_is_valid_ascii_whatever_a_peer_writes(client: str, detail: str) -> None:
    shown = line(Event("publish-denied", detail, client_id=client), "json")
    assert shown.isascii()
    assert shown.isprintable()
    said = json.loads(shown)
    # A strict reader takes no half of a surrogate pair.
    assert json.dumps(said, ensure_ascii=False).encode("utf-8")
    if client and client.isascii() and len(client) <= logs.CHARACTERS_MAX:
        assert said["client"] == client
    assert len(said.get("client", "")) <= 7 * logs.CHARACTERS_MAX


def test_a_long_client_id_is_cut() -> None:
    said = json.loads(line(Event("connected", client_id="x" * 65_535), "json"))
    assert said["client"] == "x" * logs.CHARACTERS_MAX + "…"


def test_a_level_leaves_out_what_is_below_it() -> None:
    events = [Event("connected"), Event("publish-denied"), Event("accept-failed")]
    for level, count in (("debug", 3), ("info", 3), ("warning", 2), ("error", 1)):
        assert len(taken(events, level=level)) == count


def test_a_flood_from_one_address_becomes_one_line_with_its_number() -> None:
    flood = [
        Event("authentication-refused", client_id=str(number), address=f"192.0.2.7:{number}")
        for number in range(1, 10_001)
    ]
    other = Event("authentication-refused", address="192.0.2.8:1")
    said = taken([*flood, other])
    assert [one.get("count") for one in said] == [None] * 6 + [9_995]
    assert said[-1]["address"] == "192.0.2.7"
    assert said[5]["address"] == "192.0.2.8"
    assert "client" not in said[-1]


def test_a_flood_from_everywhere_is_bounded_and_counted() -> None:
    flood = [
        Event("authentication-refused", address=f"10.{number >> 8}.{number & 255}.1:1")
        for number in range(5_000)
    ]
    said = taken(flood)
    assert len(said) <= logs.ADDRESSES_MAX + 1
    assert sum(one.get("count", 1) for one in said) == 5_000
    assert said[-1]["address"] == logs.MANY


@given(
    st.lists(
        st.tuples(st.sampled_from(["connected", "malformed", "x"]), st.integers(1, 4)), max_size=60
    ),
    st.sets(st.integers(0, 59)),
)
def test_every_event_is_a_line_or_in_the_count_of_one(
    happened: list[tuple[str, int]], ends: set[int]
) -> None:
    def act() -> None:
        log = logs.EventLog()
        for number, (kind, host) in enumerate(happened):
            log.take(Event(kind, address=f"192.0.2.{host}:9"))  # type: ignore[arg-type]
            if number in ends:
                log.flush()
        log.stop()

    counted: dict[tuple[str, str], int] = {}
    for text in written(act, format="json", level="info"):
        said = json.loads(text)
        key = (said["event"], said["address"])
        counted[key] = counted.get(key, 0) + said.get("count", 1)
    wanted: dict[tuple[str, str], int] = {}
    for kind, host in happened:
        wanted[kind, f"192.0.2.{host}"] = wanted.get((kind, f"192.0.2.{host}"), 0) + 1
    assert counted == wanted


def test_what_the_ring_has_lost_is_said_once_with_its_number() -> None:
    log = logs.EventLog()
    lost = [7]
    log.count_losses(lambda: lost[0])

    def act() -> None:
        log.flush()
        log.flush()
        lost[0] = 10
        log.stop()

    said = [json.loads(text) for text in written(act, format="json")]
    assert [(one["event"], one["count"]) for one in said] == [
        ("events-lost", 7),
        ("events-lost", 3),
    ]


@pytest.mark.parametrize("form", ["console", "json"])
def test_what_is_no_event_is_a_note_and_an_error_stays_on_its_line(form: str) -> None:
    def act() -> None:
        logger = logging.getLogger("casemate.broker")
        logger.warning("the file %s cannot be read", "a\nb")
        logger.error("it failed", extra={"event": "reload-refused", "fields": {"file": "a b"}})
        try:
            int(CANARY)
        except ValueError:
            logger.exception("a listener failed")

    note, event, error = written(act, format=form)
    assert "note" in note
    assert r"a\nb" in note
    assert "reload-refused" in event
    assert "a b" in event
    assert "ValueError" in error
    assert error.isprintable()


def test_other_libraries_do_not_flood_the_log_at_debug() -> None:
    def act() -> None:
        logging.getLogger("asyncio").debug("selector")
        logging.getLogger("casemate.broker").debug("ours")

    (one,) = written(act, level="debug")
    assert "ours" in one


def test_the_guide_names_each_kind_of_event_with_its_level_and_field() -> None:
    source = (ROOT / "crates/python/src/report.rs").read_text(encoding="utf-8")
    kinds = set(re.findall(r'\(\s*"([a-z0-9-]+)",', source))
    assert {"connected", "authentication-refused", "accept-failed"} <= kinds
    for kind in sorted(kinds):
        row = re.search(rf"^\|[^|]*`{kind}`[^|]*\| (\w+) \| ?(.*)\|$", GUIDE, re.MULTILINE)
        assert row is not None, f"the guide does not name {kind}"
        said = json.loads(line(Event(kind, "some detail"), "json"))
        assert said["level"] == row[1], kind
        if row[2].strip():
            assert row[2].split("`")[1] in said, kind


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("client", ["probe", CANARY, "x" * 9_999, " WARNING ", "\n"])
def test_the_filter_of_the_guide_finds_the_address_and_cannot_be_led_to_another(
    form: str, client: str
) -> None:
    forged = line(Event("authentication-refused", address="203.0.113.9:1"), form)
    for wanted, address in (("192.0.2.7", "192.0.2.7:4"), ("2001:db8::1", "[2001:db8::1]:4")):
        event = Event("authentication-refused", "no", client_id=client + forged, address=address)
        shown = line(event, form)
        without_date = re.sub(r"^(\{\"time\": \")?[^ \"]+Z", r"\1", shown)
        for text in (shown, without_date, f"host casemate[42]: {shown}"):
            assert banned(text) == wanted, text
    for kind in ("connected", "disconnected", "publish-denied"):
        assert banned(line(Event(kind, forged, client_id=client + forged), form)) is None
    assert banned(line(Event("authentication-refused", forged, address=None), form)) is None
