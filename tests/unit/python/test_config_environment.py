"""Variables over the file: typed as TOML is, checked as it is, and named when they are wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import config
from casemate.config import Reading, shape, variables
from casemate.document import Document
from casemate.errors import ConfigurationError

TLS = '[[listeners]]\nkind = "tls"\nport = 8883\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "casemate.toml").write_text(TLS + "[limits]\nreceive_max = 7\n")
    return tmp_path


def read(home: Path, environment: Mapping[str, str]) -> Reading:
    return config.read(home, environment)


def refused(home: Path, environment: Mapping[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        config.read(home, environment)
    return caught.value


def test_a_variable_counts_over_the_file_and_the_file_over_the_default(home: Path) -> None:
    reading = read(home, {"CASEMATE_LIMITS__PACKET_BYTES_MAX": "2_000_000", "CASEMATE_SHARDS": "0"})
    assert reading.configuration.limits.packet_bytes_max == 2_000_000
    assert reading.configuration.limits.receive_max == 7
    assert reading.configuration.shards == 0
    assert str(reading.source(("shards",))) == "CASEMATE_SHARDS"
    assert str(reading.source(("limits", "receive_max"))) == "casemate.toml:5"
    assert str(reading.source(("limits", "inflight_max"))) == "default"


def test_one_option_of_a_listener_changes_and_the_others_stay(home: Path) -> None:
    (listener,) = read(home, {"CASEMATE_LISTENERS__0__PORT": "18883"}).configuration.listeners
    assert (listener.kind, listener.port) == ("tls", 18_883)


def test_the_next_listener_can_be_added(home: Path) -> None:
    environment = {
        "CASEMATE_LISTENERS__1__KIND": "wss",
        "CASEMATE_LISTENERS__1__PORT": "8084",
        "CASEMATE_LISTENERS__1__ORIGINS": "https://a.example, https://b.example",
    }
    first, second = read(home, environment).configuration.listeners
    assert (first.port, second.port, second.path) == (8_883, 8_084, "/mqtt")
    assert second.origins == ("https://a.example", "https://b.example")
    assert second.certificate == home / "pki/server.crt"


def test_a_file_without_listeners_can_get_them_from_variables(home: Path) -> None:
    (home / "casemate.toml").write_text("")
    environment = {"CASEMATE_LISTENERS__0__KIND": "tcp", "CASEMATE_LISTENERS__0__PORT": "1883"}
    assert read(home, environment).configuration.listeners[0].port == 1_883
    assert "no listener" in refused(home, {}).message


def test_eleven_listeners_are_added_in_the_order_of_their_numbers(home: Path) -> None:
    environment = {}
    for position in range(1, 12):
        environment[f"CASEMATE_LISTENERS__{position}__KIND"] = "tcp"
        environment[f"CASEMATE_LISTENERS__{position}__PORT"] = str(1_000 + position)
    listeners = read(home, environment).configuration.listeners
    assert [one.port for one in listeners] == [8_883, *range(1_001, 1_012)]


def test_flags_are_true_or_false_as_in_the_file(home: Path) -> None:
    assert read(home, {"CASEMATE_RELOAD_ON_CHANGE": "true"}).configuration.reload_on_change
    for text in ("yes", "1", "True", "TRUE", "on"):
        error = refused(home, {"CASEMATE_RELOAD_ON_CHANGE": text})
        assert "expected true or false" in error.message


def test_what_weakens_needs_its_reason_here_too(home: Path) -> None:
    environment = {"CASEMATE_LISTENERS__0__KIND": "tcp", "CASEMATE_LISTENERS__0__HOST": "::"}
    error = refused(home, environment)
    assert str(error).startswith("CASEMATE_LISTENERS__0__HOST: a plaintext listener")
    reason = {"CASEMATE_LISTENERS__0__INSECURE_PLAINTEXT": "the network is a cable"}
    reading = read(home, {**environment, **reason})
    assert config.weakenings(reading.configuration)


@pytest.mark.parametrize(
    ("name", "value", "words", "hint"),
    [
        ("CASEMATE_LIMIT__RECEIVE_MAX", "1", "no such option", "CASEMATE_LIMITS__RECEIVE_MAX"),
        ("CASEMATE_LIMITS_RECEIVE_MAX", "1", "no such option", "CASEMATE_LIMITS__RECEIVE_MAX"),
        ("CASEMATE_limits__receive_max", "1", "no such option", "CASEMATE_LIMITS__RECEIVE_MAX"),
        ("CASEMATE_LISTENERS__3__PROT", "1", "no such option", "CASEMATE_LISTENERS__3__PORT"),
        ("CASEMATE_LISTENERS__TLS__PORT", "1", "no such option", "CASEMATE_LISTENERS__0__PORT"),
        ("CASEMATE_LISTENERS__00__PORT", "1", "no such option", ""),
        ("CASEMATE_LISTENERS__-1__PORT", "1", "no such option", "CASEMATE_LISTENERS__0__PORT"),
        ("CASEMATE_LISTENERS", "[]", "no such option", ""),
        ("CASEMATE_LIMITS", "{}", "no such option", ""),
        ("CASEMATE_HOEM", "/x", "no such option", "CASEMATE_HOME"),
        ("CASEMATE_", "1", "no such option", "casemate config show"),
        ("CASEMATE_ZZZZZZZZ", "1", "no such option", "casemate config show"),
        ("CASEMATE_PORT", "tcp://10.0.0.1:8883", "Kubernetes", "enableServiceLinks"),
        ("CASEMATE_SERVICE_HOST", "10.0.0.1", "Kubernetes", "enableServiceLinks"),
        ("CASEMATE_PORT_8883_TCP_ADDR", "10.0.0.1", "Kubernetes", "enableServiceLinks"),
        (
            "CASEMATE_LISTENERS__3__PORT",
            "1",
            "no listeners.1 before it",
            "CASEMATE_LISTENERS__1__PORT",
        ),
        ("CASEMATE_SHARDS", "", "is empty", "unset"),
        ("CASEMATE_LISTENERS__0__ORIGINS", " ", "is empty", "unset"),
        ("CASEMATE_SHARDS", "two", "expected a whole number, found 'two'", ""),
        ("CASEMATE_SHARDS", "\u0661", "expected a whole number", ""),
        ("CASEMATE_SHARDS", "1.0", "expected a whole number", ""),
        ("CASEMATE_SHARDS", "9" * 5_000, "expected a whole number", ""),
        ("CASEMATE_SHARDS", "999", "at most 256", "or unset it for the default"),
        ("CASEMATE_LISTENERS__0__KIND", "tsl", "expected", "tls"),
        ("CASEMATE_LISTENERS__1__KIND", "tls", "port is missing", "CASEMATE_LISTENERS__1__PORT"),
        ("CASEMATE_LISTENERS__0__PROXY_FROM", "10.0.0.5/24", "expected a network", "10.0.0.0/24"),
        ("CASEMATE_LOG__LEVEL", "warn", "expected", "warning"),
    ],
)
def test_what_is_wrong_is_named_with_its_variable_and_a_hint(
    home: Path, name: str, value: str, words: str, hint: str
) -> None:
    error = refused(home, {name: value})
    assert str(error).startswith(f"{name}: "), str(error)
    assert words in error.message
    assert hint in error.hint
    assert error.file is None
    assert error.line is None


@pytest.mark.parametrize("file", variables.SECRET_FILES)
def test_a_secret_in_the_environment_is_refused_and_not_repeated(home: Path, file: str) -> None:
    name = file.removesuffix("_FILE")
    error = refused(home, {name: "hunter2-hunter2"})
    assert f"{name}_FILE" in error.hint
    assert "hunter2" not in f"{error} {error.hint}"
    assert read(home, {f"{name}_FILE": "/run/secrets/it"})


def test_a_mistake_in_the_file_keeps_its_line_whatever_the_variables_say(home: Path) -> None:
    (home / "casemate.toml").write_text(TLS + "[limits]\nreceive_max = 0\n")
    error = refused(home, {"CASEMATE_SHARDS": "2"})
    assert str(error).startswith(f"{home}/casemate.toml:5: ")
    assert read(home, {"CASEMATE_LIMITS__RECEIVE_MAX": "1"})


def test_a_contradiction_names_the_variables_that_may_be_its_other_half(home: Path) -> None:
    (home / "casemate.toml").write_text(TLS + "[limits]\nqueue_bytes_max = 1_000_000\n")
    error = refused(home, {"CASEMATE_LIMITS__PACKET_BYTES_MAX": "2000000"})
    assert error.line == 5
    assert "CASEMATE_LIMITS__PACKET_BYTES_MAX" in error.hint


def test_a_table_that_is_none_is_refused_as_without_variables(home: Path) -> None:
    (home / "casemate.toml").write_text(TLS.replace("[[listeners]]", "limits = 3\n[[listeners]]"))
    assert "expected a table" in refused(home, {"CASEMATE_LIMITS__RECEIVE_MAX": "1"}).message
    (home / "casemate.toml").write_text("listeners = 3\n")
    assert "[[listeners]]" in refused(home, {"CASEMATE_LISTENERS__0__PORT": "1"}).message
    (home / "casemate.toml").write_text("listeners = [3]\n")
    assert refused(home, {"CASEMATE_LISTENERS__0__PORT": "1"}).line == 1


def test_variables_of_others_are_left_alone(home: Path) -> None:
    others = {"PATH": "/bin", "_CASEMATE_COMPLETE": "x", "XCASEMATE_SHARDS": "9", "CASEMATE": "1"}
    assert read(home, others).configuration.shards == 1


def test_this_process_is_asked_where_no_environment_is_given(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEMATE_SHARDS", "3")
    assert config.load(home).shards == 3


@pytest.mark.parametrize("option", shape.options(), ids=lambda one: f"{one.section}.{one.name}")
def test_every_option_has_a_variable_a_meaning_and_is_told_from_all_others(
    option: shape.Option,
) -> None:
    middle = (0,) if option.is_repeated else ()
    section = (option.section,) if option.section else ()
    place = (*section, *middle, option.name)
    text = {"number": "1", "flag": "true", "text": "x", "list": "x,y"}[option.kind]
    laid, named = variables.overlay({"listeners": [{}]}, {variables.variable(place): text})
    assert list(named) == [place]
    value = laid
    for key in place:
        value = value[key]
    assert value == {"number": 1, "flag": True, "text": "x", "list": ["x", "y"]}[option.kind]
    assert option.meaning.endswith(".")


@given(
    st.dictionaries(
        st.sampled_from([variables.variable(("listeners", 0, "port")), "CASEMATE_SHARDS"])
        | st.text(max_size=20).map(lambda text: f"CASEMATE_{text}"),
        st.text(max_size=20),
        max_size=4,
    )
)
def test_no_environment_does_more_than_raise(environment: dict[str, str]) -> None:
    document = Document.parse(TLS, Path("casemate.toml"), ConfigurationError)
    with contextlib.suppress(ConfigurationError):
        laid, named = variables.overlay(document.values, environment)
        config.parse(Document(document.file, laid, document.lines, document.fault), named)
    assert document.values["listeners"] == [{"kind": "tls", "port": 8883}]


@given(st.text(max_size=30))
def test_a_hostile_name_is_shown_in_plain_ascii(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        variables.overlay({}, {f"CASEMATE_!{text}": "1"})
    assert f"{caught.value}{caught.value.hint}".isascii()
    assert str(caught.value).isprintable()
