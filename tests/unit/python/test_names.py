"""Names: the safe alphabet, and everything that an attacker would like in a name."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import NameRefused
from casemate.names import admit_account_name, admit_role_name, is_account_name

FIRST = string.ascii_letters + string.digits
REST = FIRST + "._@-"

HOSTILE = [
    "", "#", "+", "a/b", "a/#", "+/a", "$SYS", "$share", "%u", "%c", "a%u", ".", "..", "../a",
    ".hidden", "-rf", "--help", "a b", " a", "a ", "a\n", "a\r\n", "a\x00", "\x00", "a\x1b[31m",
    "a\u202eb", "ü", "\u0430", "a\u200b", "a'b", 'a"b', "a;b", "a,b", "a=b", "a:b", "a*b", "a&b",
    "<b>", "a\\b", "a`b", "\ud800", "a" * 129, "@a", "_a",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["a", "7", "thermostat-7", "ann@example.org", "a.b_c-d", "A" * 128]
)
def test_a_name_of_the_safe_alphabet_is_admitted(name: str) -> None:
    assert admit_account_name(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_cve_2017_7650_a_name_that_means_something_in_a_topic_or_a_path_is_refused(
    name: str,
) -> None:
    assert not is_account_name(name)
    with pytest.raises(NameRefused) as refused:
        admit_account_name(name)
    assert str(refused.value).isprintable()
    assert str(refused.value).isascii() or "…" in str(refused.value)


@given(st.text(max_size=140))
def test_exactly_the_alphabet_is_admitted(name: str) -> None:
    wanted = (
        0 < len(name) <= 128 and name[0] in FIRST and all(character in REST for character in name)
    )
    assert is_account_name(name) == wanted


@given(st.text(alphabet=REST, max_size=10).map(lambda rest: "a" + rest))
def test_every_admitted_name_is_one_topic_level_and_one_folder(name: str) -> None:
    assert admit_account_name(name) == name
    assert not set(name) & set("/+#$%\0")
    assert name not in (".", "..")


@pytest.mark.parametrize("role", ["sensor", "a", "A-b_9", "r" * 64])
def test_a_role_of_the_safe_alphabet_is_admitted(role: str) -> None:
    assert admit_role_name(role) == role


@pytest.mark.parametrize("role", ["", "7", "-a", "a.b", "a,b", "a b", "a\n", "r" * 65, "a@b", "ä"])
def test_any_other_role_is_refused(role: str) -> None:
    with pytest.raises(NameRefused):
        admit_role_name(role)
