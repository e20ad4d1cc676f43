"""The policy: what is written is allowed, what is wrong anywhere allows nothing at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import PolicyError, UnknownRole
from casemate.policy import Policy, default_text

GOOD = '[roles.sensor]\nallow = [\n    { publish = "devices/%u/#", qos = 1, retain = true },\n]\n'


def refused(text: str) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        Policy.parse(text)
    return caught.value


def rule(text: str) -> str:
    return f"[roles.a]\nallow = [\n{text},\n]\n"


def test_the_default_policy_has_three_roles() -> None:
    rules = dict(Policy.parse(default_text()).rules())
    assert list(rules) == ["operator", "sensor", "console"]
    assert [one[:4] for one in rules["operator"]] == [
        ("publish", "#", 2, True),
        ("subscribe", "#", 2, False),
        ("subscribe", "$SYS/#", 2, False),
    ]
    assert [one[:4] for one in rules["sensor"]] == [
        ("publish", "devices/%u/#", 1, True),
        ("subscribe", "devices/%u/commands/#", 2, False),
    ]
    assert [one[:4] for one in rules["console"]] == [
        ("subscribe", "devices/#", 2, False),
        ("publish", "devices/+/commands/#", 2, False),
    ]


def test_each_rule_says_where_it_stands() -> None:
    text = default_text()
    for _, rules in Policy.parse(text).rules():
        for operation, topic_filter, _, _, where in rules:
            name, line = where.split(":")
            assert name == "policy.toml"
            written = text.splitlines()[int(line) - 1]
            assert f'"{topic_filter}"' in written
            assert operation in written or "both" in written


def test_both_is_two_rules_and_only_a_publish_retains() -> None:
    policy = Policy.parse(rule('{ both = "a/+", qos = 0, retain = true }'))
    assert policy.rules() == [
        (
            "a",
            [
                ("publish", "a/+", 0, True, "policy.toml:3"),
                ("subscribe", "a/+", 0, False, "policy.toml:3"),
            ],
        )
    ]


def test_rules_may_be_tables_of_their_own() -> None:
    policy = Policy.parse('[[roles.a.allow]]\npublish = "x"\n[[roles.a.allow]]\nsubscribe = "y"\n')
    assert [one.where for one in policy.roles["a"]] == ["policy.toml:2", "policy.toml:4"]


def test_a_role_without_rules_allows_nothing() -> None:
    assert Policy.parse("[roles.none]\nallow = []\n").rules() == [("none", [])]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "# a comment\n", "   ", "[roles]\n", "roles = {}\n", "[roles.a]\n", "\ufeff", "\0"],
)
def test_cve_2018_12550_an_empty_policy_is_an_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyError):
        Policy.load(file)


def test_cve_2018_12550_a_policy_that_is_missing_or_unreadable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="missing"):
        Policy.load(tmp_path / "policy.toml")
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.load(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy.load(tmp_path / "bytes")


def test_cve_2018_12550_a_policy_cut_short_anywhere_never_allows_more() -> None:
    whole = {one[:4] for _, rules in Policy.parse(default_text()).rules() for one in rules}
    text = default_text()
    for length in range(len(text)):
        with contextlib.suppress(PolicyError):
            cut = Policy.parse(text[:length])
            assert {one[:4] for _, rules in cut.rules() for one in rules} <= whole


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[rolls.a]\nallow = []\n", 1, "unknown key 'rolls'"),
        ("default = true\n" + GOOD, 1, "unknown key 'default'"),
        ("[roles]\na = 3\n", 2, "not a table"),
        ('[roles."a/#"]\nallow = []\n', 1, "cannot be the name of a role"),
        ("[roles.a]\nalow = []\n", 2, "unknown key 'alow'"),
        ("[roles.a]\nallow = []\ndeny = []\n", 3, "unknown key 'deny'"),
        ("[roles.a]\nallow = true\n", 2, "no list of rules"),
        (rule('"#"'), 3, "not a table"),
        (rule("{ }"), 3, "exactly one"),
        (rule('{ publish = "a", subscribe = "b" }'), 3, "exactly one"),
        (rule('{ publish = "a", both = "b" }'), 3, "exactly one"),
        (rule('{ publsh = "a" }'), 3, "unknown key 'publsh'"),
        (rule('{ publish = "a" },\n{ publish = 3 }'), 4, "text in quotes"),
        (rule('{ publish = "a", qos = 3 }'), 3, "qos is 3"),
        (rule('{ publish = "a", qos = -1 }'), 3, "qos is -1"),
        (rule('{ publish = "a", qos = true }'), 3, "qos is True"),
        (rule('{ publish = "a", qos = "1" }'), 3, "qos is '1'"),
        (rule('{ publish = "a", qos = 1.0 }'), 3, "qos is 1.0"),
        (rule('{ publish = "a", retain = 1 }'), 3, "retain is 1"),
        (rule('{ subscribe = "a", retain = true }'), 3, "retain means nothing"),
        ("[roles.a]\nallow = [\n", 3, "not TOML"),
        ("[roles.a]\nallow = []\n[roles.a]\nallow = []\n", 3, "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, words: str) -> None:
    error = refused(text)
    assert words in str(error)
    assert error.line == line
    assert error.hint or "text in quotes" in words


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+", "/", "a", "a/b", "+/+", "a/#", "/#", "+/a/#", "%u", "a/%u/b", "%u/%c/#", "a//b",
     "ä/日", "a b", "x" * 65_535],
)  # fmt: skip
def test_a_valid_filter_is_admitted(topic_filter: str) -> None:
    # [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-3]
    (found,) = Policy.parse(rule(f'{{ subscribe = "{topic_filter}" }}')).roles["a"]
    assert found.filter == topic_filter


@pytest.mark.parametrize(
    "topic_filter",
    ["", "#/a", "a#", "a/#b", "a/#/b", "##", "a+", "+a/b", "a/++", "#/", "a\\u0000", "\\u0000",
     "a\\u0007", "a\\u007f", "a\\u0085", "\\ufffe", "x" * 65_536, "ä" * 32_768,
     "$share/g/a", "$share", "a%u", "%u%c", "%%", "%u.x", "100%", "%x", "a/%/b", "%U"],
)  # fmt: skip
def test_an_invalid_filter_is_refused(topic_filter: str) -> None:
    # [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
    error = refused(rule(f'{{ subscribe = "{topic_filter}" }}'))
    assert error.line == 3
    assert len(str(error)) < 400


@pytest.mark.parametrize("word", ["publish", "both"])
@pytest.mark.parametrize("topic", ["$SYS/#", "$CONTROL/x", "$", "$SYS/broker/+"])
def test_aedes_597_no_rule_lets_a_client_publish_to_the_brokers_own_topics(
    word: str, topic: str
) -> None:
    assert "belong to the broker" in refused(rule(f'{{ {word} = "{topic}" }}')).message


def test_the_number_of_rules_is_bounded() -> None:
    many = ",\n".join('{ subscribe = "a" }' for _ in range(1_001))
    assert "more than" in refused(rule(many)).message
    roles = "".join(f"[roles.r{number}]\nallow = []\n" for number in range(1_001))
    assert "more than" in refused(roles).message


def test_a_role_that_nobody_defines_is_an_error_with_the_nearest_spelling() -> None:
    policy = Policy.parse(GOOD)
    policy.require_roles(["sensor"], "account")
    with pytest.raises(UnknownRole, match="senser") as caught:
        policy.require_roles(["sensor", "senser"], 'account "t7"')
    assert '"sensor"' in caught.value.hint


@given(st.text(max_size=200))
def test_no_text_does_more_than_raise(text: str) -> None:
    with contextlib.suppress(PolicyError):
        Policy.parse(text)


@given(st.text(st.sampled_from("ab/+#$%uc"), max_size=12))
def test_a_filter_is_admitted_exactly_when_each_level_is(topic_filter: str) -> None:
    levels = topic_filter.split("/")
    valid = topic_filter != "" and all(
        level in ("+", "%u", "%c")
        or (level == "#" and position == len(levels) - 1)
        or not set(level) & set("+#%")
        for position, level in enumerate(levels)
    )
    if valid and levels[0] != "$share":
        Policy.parse(rule(f'{{ subscribe = "{topic_filter}" }}'))
    else:
        refused(rule(f'{{ subscribe = "{topic_filter}" }}'))
