"""Topics and patterns: what matches, what is read out, and that no value leaves its level.

A table of filters and topics, after MQTT 5.0 §4.7; the same cases hold for patterns.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.client import TopicPattern, matches

MATCHES = [
    ("a/b", "a/b"),
    ("a/+", "a/b"),
    ("a/+", "a/"),
    ("+/+", "/a"),
    ("/+", "/a"),
    ("+", "a"),
    ("#", "a/b/c"),
    ("a/#", "a"),
    ("a/#", "a/b/c"),
    ("a/+/#", "a/b"),
    ("+/b/#", "a/b/c"),
    ("$SYS/#", "$SYS/a"),
    ("$SYS/+", "$SYS/a"),
    ("$share/g/a/+", "a/b"),
    ("a/{b}", "a/{b}"),
]
DIFFERS = [
    ("a/b", "a/c"),
    ("a/b", "a"),
    ("a", "a/b"),
    ("a/+", "a"),
    ("a/+", "a/b/c"),
    ("+", "/a"),
    ("a/b/#", "a"),
    ("a/+/#", "a"),
    ("#", "$SYS/a"),
    ("+/a", "$SYS/a"),
    ("$share/g/#", "$SYS/a"),
    ("A", "a"),
    ("a/{b}", "a/c"),
]


@pytest.mark.parametrize(("topic_filter", "topic"), MATCHES)
def test_a_filter_matches(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic)


@pytest.mark.parametrize(("topic_filter", "topic"), DIFFERS)
def test_a_filter_does_not_match(topic_filter: str, topic: str) -> None:
    """[MQTT-4.7.2-1] for those that begin with $."""
    assert not matches(topic_filter, topic)


@pytest.mark.parametrize("topic_filter", ["", "a+", "a/#/b", "a#", "$share/g", "$share//a", "\0"])
def test_a_filter_that_cannot_be_is_refused(topic_filter: str) -> None:
    with pytest.raises(ValueError, match="invalid topic filter"):
        matches(topic_filter, "a")


def test_ghsa_2hjf_a_filter_of_many_wildcards_costs_no_more_than_its_length() -> None:
    deep = "/".join("+" * 20_000)
    assert matches(deep + "/#", "/".join("a" * 30_000))
    assert not matches(deep, "/".join("a" * 20_001))


def test_a_pattern_reads_what_it_names() -> None:
    pattern = TopicPattern("devices/{device}/{kind}/+/{rest#}")
    assert str(pattern) == pattern.filter == "devices/+/+/+/#"
    assert pattern.read("devices/t7/temp/x/a/b") == {
        "device": "t7", "kind": "temp", "rest": "a/b",
    }  # fmt: skip
    assert pattern.read("devices/t7/temp/x")["rest"] == ""
    with pytest.raises(ValueError, match="does not match"):
        pattern.read("devices/t7")


def test_a_shared_pattern_is_read_without_its_group() -> None:
    pattern = TopicPattern("$share/workers/jobs/{job}")
    assert pattern.filter == "$share/workers/jobs/+"
    assert pattern.read("jobs/7") == {"job": "7"}


@pytest.mark.parametrize(
    "text",
    ["a/{b}c", "a/{B}", "a/{}", "{a}/{a}", "{a#}/b", "a/{b", "", "a/b#", "{1}", "$share/{g}/a{b}"],
)
def test_a_pattern_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        TopicPattern(text)
    assert type(refused.value) is ValueError


def test_a_topic_is_written_from_its_names() -> None:
    pattern = TopicPattern("devices/{device}/{rest#}")
    assert pattern.topic(device="t7", rest="a/b") == "devices/t7/a/b"
    assert pattern.topic(device=7, rest="a") == "devices/7/a"


@pytest.mark.parametrize("value", ["a/b", "+", "#", "a+", "", "\0", "a#"])
def test_cve_2017_7650_no_value_leaves_its_level(value: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        TopicPattern("devices/{device}").topic(device=value)


def test_a_value_that_is_missing_or_unknown_is_named() -> None:
    with pytest.raises(ValueError, match="needs device"):
        TopicPattern("devices/{device}").topic()
    with pytest.raises(ValueError, match=r"has no \{x\}"):
        TopicPattern("devices/{device}").topic(device="a", x="b")
    with pytest.raises(ValueError, match="without a name"):
        TopicPattern("devices/+").topic()


levels = st.text(
    st.characters(blacklist_characters="+#/\0", blacklist_categories=["C"]), min_size=1
)


@given(device=levels, rest=st.lists(levels, min_size=1, max_size=4))
def test_what_is_written_is_read_again(device: str, rest: list[str]) -> None:
    pattern = TopicPattern("devices/{device}/{rest#}")
    said = {"device": device, "rest": "/".join(rest)}
    assert pattern.read(pattern.topic(**said)) == said


def test_patterns_are_values() -> None:
    assert TopicPattern("a/{b}") == TopicPattern("a/{b}")
    assert len({TopicPattern("a/{b}"), TopicPattern("a/{b}"), TopicPattern("a/{c}")}) == 2
