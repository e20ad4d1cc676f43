"""Rust source is read closely enough that no string, comment or brace misleads the rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from rust_text import RustText, attached_from
from rust_text import test_files as find_test_files


@pytest.mark.parametrize(
    "hidden",
    [
        '"{ // no comment"',
        r'"a quote \" and a brace {"',
        'r#"raw " with { inside"#',
        'b"bytes {"',
        'br##"raw "# bytes {"##',
        "'{'",
        r"'\''",
        "b'{'",
        r"'\u{7b}'",
        "/* a { in /* a nested { */ comment */ 1",
        "1 // a brace {",
    ],
)
def test_a_brace_that_is_no_code_does_not_move_the_end_of_a_function(hidden: str) -> None:
    text = f"fn first() {{\n    let a = {hidden}\n    ;\n}}\nfn second() {{\n}}\n"
    found = {function.name: function for function in RustText(text).functions()}
    assert (found["first"].first_line, found["first"].last_line) == (1, 4)
    assert (found["second"].first_line, found["second"].last_line) == (5, 6)


def test_a_lifetime_is_no_character() -> None:
    text = "fn longest<'a>(x: &'a str, y: &'a str) -> &'a str {\n    x\n}\n"
    assert [function.lines for function in RustText(text).functions()] == [3]


def test_a_declaration_without_a_body_is_no_function() -> None:
    text = "trait Store {\n    fn put(&self, bytes: [u8; 4]);\n    fn get(&self) -> u8 { 1 }\n}\n"
    assert [function.name for function in RustText(text).functions()] == ["get"]


def test_the_three_views_have_the_same_lines() -> None:
    text = 'let a = "x\ny"; // one\n/* two\nthree */ let b = \'"\';\n'
    source = RustText(text)
    assert len(source.code) == len(source.comments) == len(text)
    assert [line.strip() for line in source.comment_lines] == ["", "// one", "/* two", "three */"]
    assert "one" not in source.code
    assert "let b" in source.code


def test_only_marked_functions_are_tests() -> None:
    text = (
        "#[test]\nfn plain_one() {}\n"
        '#[test]\n// Why it is slow.\n#[ignore = "slow"]\nfn slow_one() {}\n'
        '#[tokio::test(flavor = "current_thread")]\nasync fn with_arguments() {}\n'
        "fn between() {}\n"
    )
    found = {function.name: function.is_test for function in RustText(text).functions()}
    assert found == {
        "plain_one": True,
        "slow_one": True,
        "with_arguments": True,
        "between": False,
    }


def test_comments_above_a_test_belong_to_it() -> None:
    source = RustText("fn other() {}\n\n// [MQTT-1.5.4-2]\n#[test]\nfn nul_is_refused() {}\n")
    test = next(function for function in source.functions() if function.is_test)
    assert attached_from(source, test) == 3


def test_the_parts_that_only_tests_see_are_found() -> None:
    text = (
        "fn shipped() {}\n#[cfg(test)]\nmod tests {\n    fn inner() {}\n}\n"
        "#[cfg(test)]\nuse std::fmt;\nfn also_shipped() {}\n"
    )
    assert RustText(text).test_spans() == [(2, 5), (6, 7)]


def test_files_of_test_modules_are_found_wherever_they_stand(tmp_path: Path) -> None:
    for name, text in {
        "lib.rs": '#[cfg(test)]\n#[path = "proofs.rs"]\nmod named;\nmod tree;\n',
        "proofs.rs": "",
        "tree.rs": "#[cfg(test)]\nmod tests;\nmod node;\n",
        "tree/tests.rs": "mod deep;\n",
        "tree/tests/deep.rs": "",
        "tree/node.rs": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {path.relative_to(tmp_path.resolve()).as_posix() for path in find_test_files(tmp_path)}
    assert found == {"proofs.rs", "tree/tests.rs", "tree/tests/deep.rs"}
