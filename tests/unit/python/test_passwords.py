"""Passwords: what is too easy, what is strong enough, and what a hash costs."""

from __future__ import annotations

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import WeakPassword
from casemate.passwords import (
    PASSWORD_BYTES_MAX,
    Hasher,
    PasswordCost,
    admit_password,
    generate_password,
    octets,
)

STRONG = "correct-horse-battery-staple-7"


@pytest.mark.parametrize("password", [STRONG, "vq7#Lm2!xZ", "žluťoučký kůň úpěl", STRONG * 30])
def test_a_strong_password_is_admitted(password: str) -> None:
    admit_password("ann", password)


@pytest.mark.parametrize(
    "password",
    ["", " ", "tooshort", "vq7#Lm2!x", "password12", "1234567890", "aaaaaaaaaaaaaaa",
     "qwertyuiop12", "casemate2024", "mosquitto1", "mosquitto12", "letmein12345",
     "2024-11-21!", "ann-ann-ann"],
)  # fmt: skip
def test_a_password_that_everybody_tries_is_refused(password: str) -> None:
    with pytest.raises(WeakPassword) as caught:
        admit_password("bob", password)
    assert password.strip() == "" or password not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("name", ["thermostat-7", "Thermostat-7", "THERMOSTAT-7"])
@pytest.mark.parametrize("password", ["thermostat-7", "xK9#thermostat-7!vQ2z", "THERMOSTAT-7 vQ2z"])
def test_mosquitto_passwd_b_a_password_never_holds_the_name(name: str, password: str) -> None:
    with pytest.raises(WeakPassword):
        admit_password(name, password)


def test_words_of_the_name_count_as_known() -> None:
    with pytest.raises(WeakPassword):
        admit_password("klytaemnestra-gateway.kitchen", "klytaemnestra1")


@pytest.mark.parametrize(
    "password", [STRONG + "\n", "\0" + STRONG, STRONG + "\x1b[0m", STRONG + "\ud800"]
)
def test_control_characters_are_refused(password: str) -> None:
    with pytest.raises(WeakPassword):
        admit_password("ann", password)


def test_the_longest_password_is_1024_bytes() -> None:
    longest = (STRONG * 40)[:PASSWORD_BYTES_MAX]
    admit_password("ann", longest)
    with pytest.raises(WeakPassword, match="longer"):
        admit_password("ann", longest + "x")
    with pytest.raises(WeakPassword, match="longer"):
        admit_password("ann", "ž" * 513)


@pytest.mark.parametrize("name", ["a", "thermostat-7", "2"])
def test_generated_passwords_are_strong_and_never_the_same(name: str) -> None:
    generated = {generate_password(name) for _ in range(20)}
    assert len(generated) == 20
    for password in generated:
        admit_password(name, password)
        assert len(password) == 29
        assert password.isascii()


@given(st.text(max_size=80))
def test_no_text_does_more_than_raise(password: str) -> None:
    hints = []
    try:
        admit_password("ann", password)
    except WeakPassword as error:
        hints.append(str(error))
    assert all("\n" not in hint for hint in hints)


def test_the_default_cost_is_the_stated_one() -> None:
    parameters = argon2.extract_parameters(Hasher(PasswordCost()).hash(b"x"))
    assert parameters.type is argon2.Type.ID
    assert (parameters.time_cost, parameters.memory_cost, parameters.parallelism) == (3, 65_536, 1)
    assert (parameters.salt_len, parameters.hash_len) == (16, 32)


def test_the_hash_of_nobody_costs_the_same_and_matches_nothing() -> None:
    hasher = Hasher(PasswordCost(time=2, memory_kib=64))
    assert argon2.extract_parameters(hasher.nobody) == argon2.extract_parameters(hasher.hash(b"x"))
    for guess in (b"", b"x", b"nobody", hasher.nobody.encode()):
        assert not hasher.matches(hasher.nobody, guess)


@pytest.mark.parametrize("stored", ["", "x", "$argon2id$", "$argon2id$v=19$m=64,t=1,p=1$!!$!!"])
def test_cve_2018_12551_a_damaged_hash_matches_nothing(stored: str) -> None:
    hasher = Hasher(PasswordCost(time=1, memory_kib=64))
    for guess in (b"", b"x", stored.encode()):
        assert not hasher.matches(stored, guess)


def test_a_hash_is_cheap_when_any_part_of_its_cost_is() -> None:
    stored = Hasher(PasswordCost(time=2, memory_kib=64)).hash(b"x")
    for time, memory_kib, cheap in ((2, 64, False), (1, 64, False), (3, 64, True), (2, 65, True)):
        assert Hasher(PasswordCost(time=time, memory_kib=memory_kib)).is_cheap(stored) is cheap


def test_octets_are_utf_8_or_nothing() -> None:
    assert octets("ž") == b"\xc5\xbe"
    assert octets(b"\xff") == b"\xff"
    assert octets(None) is None
    assert octets("\ud800") is None
