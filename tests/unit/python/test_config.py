"""The configuration: safe where nothing is said, and an error wherever something is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from casemate import config
from casemate.config import Configuration, Limits, Listener
from casemate.document import Document
from casemate.errors import ConfigurationError

TLS = '[[listeners]]\nkind = "tls"\nport = 8883\n'
REASON = "the network is a cable"


def read(text: str) -> Configuration:
    document = Document.parse(text, Path("casemate.toml"), ConfigurationError)
    return config.parse(document)


def refused(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return caught.value


def test_the_default_text_is_valid_and_safe() -> None:
    configuration = read(config.default_text())
    assert [(one.kind, one.port) for one in configuration.listeners] == [
        ("tls", 8883),
        ("wss", 8084),
    ]
    for listener in configuration.listeners:
        assert listener.client_certificates == "optional"
        assert listener.anonymous_role is None
    assert config.weakenings(configuration) == ()
    assert configuration.limits == Limits()
    assert configuration.shards == 1


def test_the_commented_limits_of_the_default_text_are_the_defaults() -> None:
    text = config.default_text()
    limits = text[text.index("[limits]") :].replace("\n# ", "\n")
    assert read(TLS + limits).limits == Limits()


def test_what_is_not_said_is_safe() -> None:
    listener = Listener(kind="tls", port=8883)
    assert listener.host == "127.0.0.1"
    assert listener.client_certificates == "optional"
    assert listener.anonymous_role is None


def test_load_makes_paths_absolute(tmp_path: Path) -> None:
    (tmp_path / "casemate.toml").write_text(
        TLS + '[[listeners]]\nkind = "tls"\nport = 1\ncertificate = "own.crt"\nkey = "/k"\n'
        '[[listeners]]\nkind = "tcp"\nport = 2\n'
    )
    first, second, third = config.load(tmp_path).listeners
    assert first.certificate == tmp_path / "pki/server.crt"
    assert first.key == tmp_path / "pki/server.key"
    assert (second.certificate, second.key) == (tmp_path / "own.crt", Path("/k"))
    assert third.certificate is None


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing") as caught:
        config.load(tmp_path)
    assert "casemate init" in caught.value.hint


@pytest.mark.parametrize("text", ["", "# only a comment\n", "shards = 1\n", "listeners = []\n"])
def test_a_file_without_listeners_opens_nothing(text: str) -> None:
    """Mosquitto #2283: an option without a listener opened an anonymous port."""
    assert "no listener" in refused(text).message


def test_exactly_the_declared_listeners_are_there() -> None:
    configuration = read(TLS + '[[listeners]]\nkind = "tcp"\nport = 0\n')
    assert [(one.kind, one.host, one.port) for one in configuration.listeners] == [
        ("tls", "127.0.0.1", 8883),
        ("tcp", "127.0.0.1", 0),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        (TLS + "prot = 1\n", 4, "unknown key 'prot' in [[listeners]]", '"port"'),
        (TLS + "[limit]\n", 4, "unknown key 'limit'", '"limits"'),
        (TLS + "[limits]\nkeepalive_s_max = 5\n", 5, "'keepalive_s_max'", '"keep_alive_s_max"'),
        (TLS + "[limits]\nzzzzzz = 5\n", 5, "'zzzzzz'", "packet_bytes_max"),
        ('[[listeners]]\nport = 1\nkind = "tsl"\n', 3, "'tsl'", '"tls"'),
        ('[[listeners]]\nkind = "tls"\n', 1, "port is missing", "port"),
        ("[[listeners]]\nport = 1\n", 1, "kind is missing", "kind"),
        (TLS + 'host = "broker.example"\n', 4, "expected an IP address", "127.0.0.1"),
        (TLS + 'host = ""\n', 4, "expected an IP address", ""),
        (TLS + 'host = "fe80::1%eth0"\n', 4, "expected an IP address", ""),
        ('[[listeners]]\nkind = "tls"\nport = 65536\n', 3, "at most 65,535", "65,535"),
        ('[[listeners]]\nkind = "tls"\nport = -1\n', 3, "at least 0", "0"),
        ('[[listeners]]\nkind = "tls"\nport = "8883"\n', 3, "whole number, found '8883'", ""),
        ('[[listeners]]\nkind = "tls"\nport = true\n', 3, "whole number, found true", ""),
        ('[[listeners]]\nkind = "tls"\nport = 1.0\n', 3, "whole number, found 1.0", ""),
        (TLS + 'certificate = "a"\n', 4, "together", "both"),
        (TLS + 'key = "a"\n', 4, "together", "both"),
        (TLS + 'certificate = ""\nkey = "a"\n', 4, "path of a file", ""),
        (TLS + f'insecure_plaintext = "{REASON}"\n', 4, "never plaintext", "remove"),
        (TLS + TLS, 6, "two listeners", "own port"),
        ("shards = 257\n" + TLS, 1, "at most 256", "256"),
        ("shards = -1\n" + TLS, 1, "at least 0", "0"),
        ("listeners = 3\n", 1, "[[listeners]]", ""),
        ("limits = 3\n" + TLS, 1, "expected a table", ""),
    ],
)
def test_what_is_wrong_is_named_with_line_and_hint(
    text: str, line: int, words: str, hint: str
) -> None:
    error = refused(text)
    assert error.line == line, str(error)
    assert words in error.message
    assert hint in error.hint
    assert str(error).startswith(f"casemate.toml:{line}: ")


def test_several_problems_are_counted_and_the_first_is_named() -> None:
    error = refused(TLS + "[limits]\nreceive_max = 0\nbad = 1\nworse = 2\n")
    assert error.line == 5
    assert "and 2 more problems" in error.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_plaintext_on_loopback_needs_no_reason(host: str) -> None:
    assert Listener(kind="tcp", host=host, port=1883).is_loopback


OUTSIDE = ["0.0.0.0", "::", "192.0.2.1", "::ffff:127.0.0.1", "fe80::1", "128.0.0.1"]  # noqa: S104


@pytest.mark.parametrize("host", OUTSIDE)
def test_plaintext_off_loopback_needs_a_written_reason(host: str) -> None:
    text = f'[[listeners]]\nkind = "tcp"\nhost = "{host}"\nport = 1883\n'
    assert "plaintext" in refused(text).message
    assert read(text + f'insecure_plaintext = "{REASON}"\n').listeners[0].kind == "tcp"


@pytest.mark.parametrize("reason", ["", "because", "yes, 9 ch", " " * 20, "  short   ", "x" * 501])
def test_a_reason_that_says_nothing_is_no_reason(reason: str) -> None:
    for option in ("insecure_plaintext", "insecure_anonymous"):
        refused(
            '[[listeners]]\nkind = "tcp"\nhost = "192.0.2.1"\nport = 1\nanonymous_role = "r"\n'
            f'{option} = "{reason}"\n'
        )


def test_the_reason_for_one_weakening_is_none_for_another() -> None:
    text = '[[listeners]]\nkind = "tcp"\nhost = "192.0.2.1"\nport = 1\nanonymous_role = "r"\n'
    assert "plaintext" in refused(text + f'insecure_anonymous = "{REASON}"\n').message
    assert "anonymous" in refused(text + f'insecure_plaintext = "{REASON}"\n').message
    both = f'insecure_anonymous = "{REASON}"\ninsecure_plaintext = "{REASON}"\n'
    assert read(text + both).listeners[0].anonymous_role == "r"


def test_anonymous_access_on_loopback_needs_a_role_alone() -> None:
    assert read(TLS + 'anonymous_role = "guest"\n').listeners[0].anonymous_role == "guest"
    assert "needs a role" in refused(TLS + f'insecure_anonymous = "{REASON}"\n').message
    assert "role" in refused(TLS + 'anonymous_role = "a/#"\n').message


@pytest.mark.parametrize("host", OUTSIDE)
def test_anonymous_access_off_loopback_needs_a_written_reason(host: str) -> None:
    text = TLS + f'host = "{host}"\nanonymous_role = "guest"\n'
    assert "lets anybody in" in refused(text).message
    assert read(text + f'insecure_anonymous = "{REASON}"\n').listeners[0].anonymous_role == "guest"


def test_a_listener_that_requires_certificates_has_no_anonymous_clients() -> None:
    text = TLS + 'client_certificates = "required"\nanonymous_role = "guest"\n'
    assert "requires certificates" in refused(text).message


@pytest.mark.parametrize(
    "line", ['client_certificates = "required"', 'client_certificates = "optional"',
             'certificate = "a"\nkey = "b"'],
)  # fmt: skip
def test_a_plaintext_listener_promises_no_certificates(line: str) -> None:
    """Mosquitto #996: a required certificate was ignored on one transport."""
    assert "tcp listener" in refused(f'[[listeners]]\nkind = "tcp"\nport = 1\n{line}\n').message


def bounds(name: str) -> tuple[int, int]:
    metadata = Limits.model_fields[name].metadata
    low = next(one.ge for one in metadata if hasattr(one, "ge"))
    return low, next(one.le for one in metadata if hasattr(one, "le"))


LIMITS = list(Limits.model_fields)
# What a limit must not fall below, or rise above, because of another one's default.
WITH = {
    "packet_bytes_max": {"queue_bytes_max": 2**40, "retained_bytes_max": 2**40},
    "queue_bytes_max": {"packet_bytes_max": 128},
    "retained_bytes_max": {"packet_bytes_max": 128, "retained_max": 0},
    "sessions_max": {"connections_max": 1},
    "connections_max": {"sessions_max": 10_000_000},
}


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_has_its_unit_in_its_name_and_bounds_on_both_sides(name: str) -> None:
    low, high = bounds(name)
    assert 0 <= low <= getattr(Limits(), name) <= high < 2**63
    assert name.endswith(("_max", "_s"))


@pytest.mark.parametrize("name", LIMITS)
def test_cve_2026_42209_zero_one_and_the_largest_value_are_admitted_or_refused(name: str) -> None:
    low, high = bounds(name)
    for value in (0, 1, low - 1, low, high, high + 1, 2**63, -1):
        values: dict[str, Any] = {**WITH.get(name, {}), name: value}
        if low <= value <= high:
            assert getattr(Limits(**values), name) == value
        else:
            with pytest.raises(ValidationError):
                Limits(**values)


@given(st.sampled_from(LIMITS), st.integers())
def test_any_number_is_within_the_bounds_or_refused_with_its_line(name: str, value: int) -> None:
    low, high = bounds(name)
    others = "".join(f"{key} = {other}\n" for key, other in WITH.get(name, {}).items())
    text = f"{TLS}[limits]\n{name} = {value}\n{others}"
    if low <= value <= high:
        assert getattr(read(text).limits, name) == value
    else:
        error = refused(text)
        assert error.line == 5
        assert name in error.message


@given(st.sampled_from(LIMITS), st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5))
def test_nothing_but_a_whole_number_is_a_limit(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_limits_that_contradict_each_other_are_refused() -> None:
    for text, words in [
        ("queue_bytes_max = 1000\n", "queue must hold"),
        ("retained_bytes_max = 1000\n", "retained store must hold"),
        ("sessions_max = 9\nconnections_max = 10\n", "needs a session"),
    ]:
        assert words in refused(TLS + "[limits]\n" + text).message
    nothing_kept = read(TLS + "[limits]\nretained_max = 0\nretained_bytes_max = 0\n")
    assert nothing_kept.limits.retained_max == 0


@given(st.text(max_size=200))
def test_no_text_does_more_than_raise(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        read(text)


@given(st.text(max_size=30))
def test_a_hostile_value_is_shown_in_plain_ascii(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.parse(
            Document(
                Path("casemate.toml"),
                {"listeners": [{"kind": "x" + value, "port": 1, value + "!": 1}]},
                {},
                ConfigurationError,
            )
        )
    assert all(character.isprintable() for character in str(caught.value))
