"""The errors: one tree, stable codes, and what a reader sees of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from casemate import errors
from casemate.errors import CasemateError, ConfigurationError, Refused

CLASSES = sorted(
    (
        one
        for one in vars(errors).values()
        if isinstance(one, type)
        and issubclass(one, CasemateError)
        and not one.__name__.startswith("_")
    ),
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("one", CLASSES)
def test_each_class_stands_in_the_drawn_tree(one: type[CasemateError]) -> None:
    assert errors.__doc__ is not None
    assert any(one.__name__ in line.split() for line in errors.__doc__.splitlines())


def test_each_class_has_a_code_of_its_own() -> None:
    codes = [one.code for one in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)


def test_the_codes_that_programs_may_rest_on_stay() -> None:
    """A code is never renamed: this list may only grow."""
    kept = {
        "casemate", "configuration", "home", "home-missing", "home-exists", "file-exposed",
        "identity-missing", "identity", "unknown-account", "account-exists", "name-refused",
        "weak-password", "credentials-refused", "pki", "authority-damaged", "authority-locked",
        "authority-expired", "clock-wrong", "lifetime-refused", "policy", "unknown-role",
        "broker", "port-in-use", "broker-stopped", "engine-failed", "client", "refused",
        "connection-lost", "not-connected", "deadline-passed", "protocol-violation",
    }  # fmt: skip
    assert kept <= {one.code for one in CLASSES}


def test_message_cause_and_hint_stay_apart() -> None:
    error = CasemateError("it failed", cause="disk full", hint="make room")
    assert str(error) == "it failed: disk full"
    assert (error.message, error.cause, error.hint) == ("it failed", "disk full", "make room")
    assert str(CasemateError("it failed")) == "it failed"


def test_an_error_in_a_file_begins_with_its_place() -> None:
    file = Path("casemate.toml")
    assert str(ConfigurationError("bad", file=file, line=3)) == "casemate.toml:3: bad"
    assert str(ConfigurationError("bad", file=file)) == "casemate.toml: bad"
    assert str(ConfigurationError("bad")) == "bad"


def test_a_refusal_keeps_its_reason_code() -> None:
    assert Refused("no", reason_code=0x87).reason_code == 0x87
