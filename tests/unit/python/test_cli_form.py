"""How messages are printed: mosquitto's -F, JSON, and the picture for somebody who watches.

Each is a function of a message and a moment, so that tables say what must come out.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from casemate.cli import record
from casemate.cli.console import WrongUsage
from casemate.cli.form import read_form
from casemate.cli.picture import SHOWN_BYTES_MAX, pictures
from casemate.client import Message, Properties

AT_NS = 1_700_000_000_123_456_789
EVERYTHING = Properties(
    payload_is_text=True,
    message_expiry_s=60,
    content_type="text/plain",
    response_topic="r/t",
    correlation_data=b"\x00abc",
    user=(("k", "v"), ("k", "v 2")),
)


def message(payload: bytes = b"abc", **others: Any) -> Message:  # noqa: ANN401 - as of Message.
    known: dict[str, Any] = {
        "topic": "lab/1", "payload": payload, "qos": 1, "retain": False, "duplicate": False,
        "properties": Properties(), "subscription_ids": (), "packet_id": 7,
    }  # fmt: skip
    return Message(**{**known, **others})


FULL = message(properties=EVERYTHING, retain=True, subscription_ids=(3,))


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("form", "full", "bare"),
    [
        ("%t %p", b"lab/1 abc", b"lab/1 abc"),
        ("%q%r%l%m", b"1137", b"1037"),
        ("%x %X", b"616263 616263", b"616263 616263"),
        ("[%C][%R][%E][%F][%S]", b"[text/plain][r/t][60][1][3]", b"[][][][][]"),
        ("[%D][%P][%A]", b"[\x00abc][k:v k:v 2][]", b"[][][]"),
        (
            "[%8t][%-8t][%.3t][%8.3t][%-8.3t]",
            b"[   lab/1][lab/1   ][lab][     lab][lab     ]",
            None,
        ),
        ("[%5p][%-5p][%05p][%2p]", b"[  abc][abc  ][00abc][abc]", None),
        ("[%9x][%-9X][%09x]", b"[   616263][616263   ][000616263]", None),
        ("[%4l][%-4l][%04l][%-04l]", b"[   3][3   ][0003][3   ]", None),
        ("[%5E][%05E]", b"[   60][00060]", b"[     ][00000]"),
        ("%%%t@@", b"%lab/1@", None),
        (r"\\\0\a\e\n\r\t\v", b"\\\0\a\x1b\n\r\t\v", None),
        ("%U", b"1700000000.123456789", None),
        ("%I", b"2023-11-14T22:13:20+0000", None),
        ("@Y-@m-@dT@H:@M:@S.@N", b"2023-11-14T22:13:20.123456789", None),
        ("no place", b"no place", None),
        ("", b"", None),
    ],
)
def test_a_format_writes_what_mosquitto_would(form: str, full: bytes, bare: bytes | None) -> None:
    write = read_form(form, raw=True, pretty=False)
    assert write(FULL, AT_NS) == full
    if bare is not None:
        assert write(message(), AT_NS) == bare


@pytest.mark.parametrize(
    "form", ["%", "%z", "%5", "%-", "\\q", "x\\", "@", "@!", "%é", "@é", "%99999t", "%.z"]
)
def test_a_format_that_means_nothing_is_refused(form: str) -> None:
    with pytest.raises(WrongUsage, match="means nothing in a format") as refused:
        read_form(form, raw=True, pretty=False)
    assert refused.value.hint


def test_mosquittos_json_quotes_the_payload_or_takes_it_in() -> None:
    head = {
        "tst": "2023-11-14T22:13:20.123456Z+0000", "topic": "lab/1", "qos": 1, "retain": 0,
        "payloadlen": 10, "mid": 7,
    }  # fmt: skip
    one = message(b'{"a":1.50}')
    quoted = read_form("%j", raw=True, pretty=False)(one, AT_NS)
    assert json.loads(quoted) == {**head, "payload": '{"a":1.50}'}
    taken_in = read_form("%J", raw=True, pretty=False)(one, AT_NS)
    assert json.loads(taken_in) == {**head, "payload": {"a": 1.5}}
    # The number keeps its digits.
    assert b'"payload":{"a":1.50}}' in taken_in
    assert b"\n" not in quoted + taken_in
    laid_out = read_form("%J", raw=True, pretty=True)(one, AT_NS)
    assert json.loads(laid_out) == json.loads(taken_in)
    assert b'\n  "payload": {\n    "a": 1.50\n  }\n}' in laid_out


def test_mosquittos_json_shows_bytes_that_are_no_text_as_numbers() -> None:
    said = json.loads(read_form("%j", raw=True, pretty=False)(message(b"\xff\x00"), AT_NS))
    assert said["payload"] == [255, 0]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no json",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"\xff",
        b"1 2",
        b"[" * 5000,
        b"9" * 70_000 + b"x",
    ],
)
def test_a_payload_that_is_no_json_is_said_to_be_none(
    payload: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write = read_form("%t %J", raw=True, pretty=False)
    assert write(message(payload), AT_NS) == b"lab/1 "
    assert capsys.readouterr().err.startswith('warning: the payload on "lab/1" is no JSON')


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b" [1,\r\n\t2] ", "[1,   2]"),
        (b'"a\\nb"', '"a\\nb"'),
        (b"1e999", "1e999"),
        (b"9" * 10_000, "9" * 10_000),
        (b"[" * 100 + b"]" * 100, "[" * 100 + "]" * 100),
        (b"[" * 101 + b"]" * 101, None),
        (b"[" * 100_000 + b"]" * 100_000, None),
    ],
)
def test_json_of_any_shape_is_read_in_bounds(payload: bytes, text: str | None) -> None:
    assert record.read(payload) == text
    if text is not None:
        assert json.loads(record.lay_out(text), parse_int=str) == json.loads(text, parse_int=str)


def test_a_line_of_json_says_all_that_is_known() -> None:
    said = json.loads(record.line(FULL, AT_NS))
    assert said == {
        "time": "2023-11-14T22:13:20.123+00:00",
        "topic": "lab/1",
        "qos": 1,
        "retain": True,
        "size": 3,
        "payload": "abc",
        "payload_is_text": True,
        "message_expiry_s": 60,
        "content_type": "text/plain",
        "response_topic": "r/t",
        "user_properties": [["k", "v"], ["k", "v 2"]],
        "subscription_ids": [3],
        "correlation_data_base64": "AGFiYw==",
    }
    assert json.loads(record.line(message(b"\xff"), AT_NS))["payload_base64"] == "/w=="


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\r\n\x00"


@pytest.mark.parametrize("form", ["%t|%p|%C|%R|%D|%P", "%j", "%J", "%-40t", "%20p"])
@pytest.mark.parametrize(
    "payload", [HOSTILE.encode(), json.dumps(HOSTILE, ensure_ascii=False).encode()]
)
def test_no_message_steers_a_terminal(form: str, payload: bytes) -> None:
    properties = Properties(
        content_type=HOSTILE,
        response_topic=HOSTILE,
        correlation_data=HOSTILE.encode(),
        user=((HOSTILE, HOSTILE),),
    )
    one = message(payload, topic=f"lab/{HOSTILE}", properties=properties)
    for write in (
        read_form(form, raw=False, pretty=False),
        read_form(form, raw=False, pretty=True),
        pictures(coloured=False),
    ):
        text = write(one, AT_NS).decode()
        assert not [c for c in text if not c.isprintable() and c != "\n"]


def shown(payload: bytes, *, coloured: bool = False, **others: Any) -> list[str]:  # noqa: ANN401
    return pictures(coloured=coloured)(message(payload, **others), AT_NS).decode().split("\n")


def test_a_picture_has_a_heading_and_lays_json_out() -> None:
    heading, *body = shown(b'{"a": [1.50, true], "b": {}, "c": []}', retain=True)
    assert heading == "lab/1  22:13:20  37 B  QoS 1  retained"
    assert body == [
        "  {",
        '    "a": [',
        "      1.50,",
        "      true",
        "    ],",
        '    "b": {},',
        '    "c": []',
        "  }",
    ]


def test_a_picture_shows_text_by_lines_and_bytes_in_rows() -> None:
    assert shown(b"one\ntwo\t2\n")[1:] == ["  one", "  two\t2"]
    assert shown(b"") == ["lab/1  22:13:20  0 B  QoS 1"]
    assert shown(bytes(range(65, 82)) + b"\xff")[1:] == [
        "  000000  41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50  ABCDEFGHIJKLMNOP",
        "  000010  51 ff                                            Q.",
    ]


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_picture_of_much_is_cut_and_says_so(letter: str) -> None:
    payload = b"." + letter.encode() * SHOWN_BYTES_MAX
    *_, text, rest = shown(payload)
    assert text.strip(" .") == letter * len(text.strip(" ."))
    assert rest == f"  … and {len(payload) - SHOWN_BYTES_MAX:,} B more, which -F raw prints"


def test_colours_name_the_parts_of_json() -> None:
    heading, *body = shown(b'{"a": [1, null, "b"]}', coloured=True)
    assert heading.startswith("\x1b[1;36mlab/1\x1b[0m")
    assert re.findall(r"\x1b\[(\d+)m([^\x1b]+)\x1b", "".join(body)) == [
        ("34", '"a"'), ("33", "1"), ("35", "null"), ("32", '"b"'),
    ]  # fmt: skip
