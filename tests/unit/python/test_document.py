"""Documents: the line that is named is the line where the value stands."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.document import Document, nearest
from casemate.errors import ConfigurationError
from casemate.files import TEXT_BYTES_MAX

FILE = Path("casemate.toml")

TEXT = '''\
# A comment with [brackets] and "quotes".
top = 1
"quoted key" = 'a # b'
text = """
[not.a.table]
x = 1"""
dotted.inner = [ 1,
  2, # a comment, with a comma
  { deep = "]}" },
]
when = 1979-05-27 07:32:00

[table]   # behind a table
a = { b = 1, c = [
  "x",
] }

[[list]]
one = 1
[[list]]
two = 2
[list.sub]
three = 3
[[list.inner]]
four = 4
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top",), 2),
        (("quoted key",), 3),
        (("text",), 4),
        (("dotted",), 7),
        (("dotted", "inner"), 7),
        (("dotted", "inner", 0), 7),
        (("dotted", "inner", 1), 8),
        (("dotted", "inner", 2), 9),
        (("dotted", "inner", 2, "deep"), 9),
        (("when",), 11),
        (("table",), 13),
        (("table", "a", "b"), 14),
        (("table", "a", "c"), 14),
        (("table", "a", "c", 0), 15),
        (("list",), 18),
        (("list", 0, "one"), 19),
        (("list", 1), 20),
        (("list", 1, "two"), 21),
        (("list", 1, "sub", "three"), 23),
        (("list", 1, "inner", 0, "four"), 25),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_each_value_is_found_on_its_line(
    place: tuple[str | int, ...], line: int, ending: str
) -> None:
    document = Document.parse(TEXT.replace("\n", ending), FILE, ConfigurationError)
    assert document.lines[place] == line


def test_a_value_that_is_missing_is_placed_at_the_table_that_would_hold_it() -> None:
    document = Document.parse(TEXT, FILE, ConfigurationError)
    assert document.line(("list", 0, "missing")) == 18
    assert document.line(("missing",)) is None


_KEYS = st.text(st.sampled_from("abc-_9é \"'.#"), min_size=1, max_size=6)
_VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.text("ab\"'\\\n#[]{},=", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


def written(value: object) -> str:
    """Writes a value as TOML on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(character):04x}" for character in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        inside = ", ".join(f"{written(key)} = {written(one)}" for key, one in value.items())
        return "{" + inside + "}"
    return str(value)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_every_valid_document_is_walked_to_its_end(values: dict[str, object]) -> None:
    text = "".join(f"{written(key)} = {written(value)}\n" for key, value in values.items())
    document = Document.parse(text, FILE, ConfigurationError)
    assert document.values == values == tomllib.loads(text)
    for line, key in enumerate(values, start=1):
        assert document.lines[(key,)] == line


@given(st.text(st.sampled_from("ab=[]{}\"'#.,\n 1\\"), max_size=30))
def test_no_text_does_more_than_raise(text: str) -> None:
    lines = []
    try:
        Document.parse(text, FILE, ConfigurationError)
    except ConfigurationError as error:
        lines.append(error.line or 1)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[x\n", 1), ("a = '", 1)]
)
def test_what_is_not_toml_is_named_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match="not TOML") as refused:
        Document.parse(text, FILE, ConfigurationError)
    assert refused.value.line == line
    assert refused.value.hint


def test_values_nested_too_deeply_are_an_error() -> None:
    with pytest.raises(ConfigurationError):
        Document.parse("a = " + "[" * 100_000, FILE, ConfigurationError)


def test_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "casemate.toml"
    with pytest.raises(ConfigurationError, match="missing"):
        Document.read(file, ConfigurationError)
    file.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigurationError, match="UTF-8") as refused:
        Document.read(file, ConfigurationError)
    assert refused.value.line == 2
    file.write_bytes(b"#" * (TEXT_BYTES_MAX + 1))
    with pytest.raises(ConfigurationError, match="larger"):
        Document.read(file, ConfigurationError)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Document.read(tmp_path, ConfigurationError)


def test_the_nearest_spelling_is_found() -> None:
    assert nearest("keepalive", ["keep_alive", "port"]) == "keep_alive"
    assert nearest("zzz", ["keep_alive", "port"]) is None
