"""The map of statements counts what is enforced and proven, and nothing that only looks so.

Each test builds a small tree of the real shape: crates with sources and tests, lists of statements.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import spec_proof
import specmap
from spec_tags import collect, statements

ENFORCED = """//! Topics.

/// Says whether a topic may stand.
pub fn is_allowed(topic: &str) -> bool {
    // [MQTT-4.7.3-1] An empty topic is nobody's.
    if topic.is_empty() {
        return false;
    }
    // [MQTT-4.7.0-1] [MQTT-3.1.1 4.7.1-1]
    #[allow(clippy::needless_bool)]
    if topic.contains('#') {
        return false;
    }
    true
}
"""
TESTED = """//! Tests of topics.

use casemate_codec::is_allowed;

// [MQTT-4.7.3-1]
#[test]
fn an_empty_topic_is_refused() {
    assert!(!is_allowed(""));
}

#[test]
fn a_wildcard_is_refused() {
    // [MQTT-3.1.1 4.7.1-1]
    assert!(!is_allowed("#"));
}

// [MQTT-4.7.0-1]
#[test]
fn this_test_never_comes_to_the_line() {
    assert!(!is_allowed(""));
}
"""
MANIFEST = """[package]
name = "casemate-codec"
version = "0.1.0"
edition = "2021"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path, "tools/spec/mqtt-5.0.txt", "# Head.\n4.7.0-1 server\n4.7.3-1 server\n")
    write(tmp_path, "tools/spec/mqtt-3.1.1.txt", "4.7.1-1 server\n4.5.0-2 client-only\n")
    write(tmp_path, "Cargo.toml", '[workspace]\nmembers = ["crates/codec"]\nresolver = "2"\n')
    write(tmp_path, "crates/codec/Cargo.toml", MANIFEST)
    write(tmp_path, "crates/codec/src/lib.rs", ENFORCED)
    write(tmp_path, "crates/codec/tests/topics.rs", TESTED)
    write(tmp_path, "tests/conformance/__init__.py", "")
    return tmp_path


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specmap, "RATCHET", tmp_path / "ratchet.json")
    monkeypatch.setattr(specmap, "PROVEN", tmp_path / "proven.json")


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def missing(root: Path) -> dict[str, list[str]]:
    known, faults = statements(root / "tools" / "spec", has_websocket=False)
    assert faults == []
    tags = collect(root)
    found = {item.identifier: specmap.gaps(item, tags) for item in known}
    return {identifier: lacks for identifier, lacks in found.items() if lacks}


def test_a_statement_with_line_and_test_is_whole(tree: Path) -> None:
    assert missing(tree) == {}


def test_the_enforcing_line_is_the_code_below_the_tag(tree: Path) -> None:
    places = collect(tree).places
    assert [place.code for place in places["MQTT-4.7.3-1"]] == ["if topic.is_empty() {"]
    assert [place.code for place in places["MQTT-4.7.0-1"]] == ["if topic.contains('#') {"]


def test_the_two_specifications_are_kept_apart(tree: Path) -> None:
    write(tree, "tools/spec/mqtt-5.0.txt", "4.7.1-1 server\n4.7.0-1 server\n4.7.3-1 server\n")
    assert missing(tree) == {"MQTT-4.7.1-1": ["line", "test"]}


def test_a_tag_in_test_code_enforces_nothing(tree: Path) -> None:
    write(tree, "crates/codec/src/lib.rs", f"//! Topics.\n#[cfg(test)]\nmod tests {{\n{TESTED}}}\n")
    assert missing(tree) == {
        "MQTT-4.7.0-1": ["line"],
        "MQTT-4.7.3-1": ["line"],
        "MQTT-3.1.1 4.7.1-1": ["line"],
    }


def test_a_tag_in_the_heading_of_a_file_enforces_nothing(tree: Path) -> None:
    write(tree, "crates/codec/src/lib.rs", "//! Topics: [MQTT-4.7.3-1].\npub fn a() {}\n")
    assert missing(tree)["MQTT-4.7.3-1"] == ["line"]


def test_a_tag_outside_the_crates_that_a_client_reaches_enforces_nothing(tree: Path) -> None:
    (tree / "crates/codec/src/lib.rs").unlink()
    write(tree, "crates/sim/src/lib.rs", ENFORCED)
    assert missing(tree)["MQTT-4.7.3-1"] == ["line"]


def test_a_tag_in_shipped_code_is_no_test(tree: Path) -> None:
    (tree / "crates/codec/tests/topics.rs").unlink()
    assert missing(tree)["MQTT-4.7.3-1"] == ["test"]


def test_a_tag_in_a_python_test_counts(tree: Path) -> None:
    (tree / "crates/codec/tests/topics.rs").unlink()
    text = (
        '"""Topics."""\n\n\ndef test_an_empty_topic_is_refused():\n    # [MQTT-4.7.3-1]\n    pass\n'
    )
    write(tree, "tests/conformance/test_topics.py", text)
    assert "MQTT-4.7.3-1" not in missing(tree)


def test_a_row_of_a_table_counts_only_when_a_test_runs_the_table(tree: Path) -> None:
    (tree / "crates/codec/tests/topics.rs").unlink()
    write(tree, "crates/codec/vectors/topics.txt", "@ [MQTT-4.7.3-1]\n")
    assert missing(tree)["MQTT-4.7.3-1"] == ["test"]
    runner = "//! T.\n#[test]\nfn every_row_holds() { rows_of_statement(); }\n"
    write(tree, "crates/codec/tests/table.rs", runner)
    assert "MQTT-4.7.3-1" not in missing(tree)


def test_a_statement_on_websocket_binds_from_the_day_there_is_one(tree: Path) -> None:
    write(tree, "tools/spec/mqtt-5.0.txt", "6.0.0-1 websocket Not yet.\n")
    assert statements(tree / "tools/spec", has_websocket=False)[0][0].kind == "websocket"
    assert statements(tree / "tools/spec", has_websocket=True)[0][0].kind == "server"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("4.7.0-1 sever", "is none of"),
        ("4.7.0-1", "is none of"),
        ("4.7.0-1 moot", "needs a reason"),
        ("4.7.0-1 server because", "takes no reason"),
        ("4.7.0-1 server\n4.7.0-1 server", "twice"),
    ],
)
def test_a_wrong_line_in_the_list_is_named(tree: Path, line: str, says: str) -> None:
    write(tree, "tools/spec/mqtt-5.0.txt", line + "\n")
    faults = statements(tree / "tools" / "spec", has_websocket=False)[1]
    assert len(faults) == 1
    assert says in faults[0]


@pytest.mark.parametrize("tag", ["[MQTT-4.7.3]", "[MQTT 4.7.3-1]", "[MQTT-4.7.3-1, -2]"])
def test_what_is_nearly_a_tag_is_named(tree: Path, tag: str) -> None:
    write(tree, "crates/codec/src/near.rs", f"//! Near.\n// {tag}\npub fn a() {{}}\n")
    assert any(tag[:8] in fault for fault in collect(tree).faults)


def test_a_tag_of_no_statement_fails(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tree, "crates/codec/src/odd.rs", "//! Odd.\n// [MQTT-9.9.9-9]\npub fn a() {}\n")
    assert specmap.main(["--root", str(tree), "--quiet"]) == 1
    assert "[MQTT-9.9.9-9] is in no specification" in capsys.readouterr().out


def test_the_ratchet_allows_what_is_open_and_refuses_more(tree: Path) -> None:
    (tree / "crates/codec/tests/topics.rs").unlink()
    ratchet = tree / "ratchet.json"
    arguments = ["--root", str(tree), "--quiet"]
    ratchet.write_text(json.dumps({"statements": {"missing": 2, "unproven": 3}}))
    assert specmap.main(arguments) == 1
    ratchet.write_text(json.dumps({"statements": {"missing": 3, "unproven": 3}}))
    assert specmap.main(arguments) == 0
    assert specmap.main([*arguments, "--strict"]) == 1
    write(tree, "crates/codec/tests/topics.rs", TESTED)
    assert specmap.main([*arguments, "--tighten"]) == 0
    assert json.loads(ratchet.read_text())["statements"] == {"missing": 0, "unproven": 3}


def test_a_proof_is_stale_when_its_line_or_its_test_changes(tree: Path) -> None:
    tags = collect(tree)
    place = tags.places["MQTT-4.7.3-1"][0]
    entry = {"test": "an_empty_topic_is_refused", "file": place.path, "line": place.digest}
    book = {"MQTT-4.7.3-1": entry}
    assert spec_proof.holds("MQTT-4.7.3-1", tags, book)
    write(tree, "crates/codec/src/lib.rs", ENFORCED.replace("topic.is_empty()", "false"))
    assert not spec_proof.holds("MQTT-4.7.3-1", collect(tree), book)
    write(tree, "crates/codec/src/lib.rs", "\n\n" + ENFORCED)
    assert spec_proof.holds("MQTT-4.7.3-1", collect(tree), book)
    write(tree, "crates/codec/tests/topics.rs", TESTED.replace("an_empty", "one_empty"))
    assert not spec_proof.holds("MQTT-4.7.3-1", collect(tree), book)


def _has_llvm() -> bool:
    try:
        return bool(shutil.which("cargo")) and bool(spec_proof.llvm_tools())
    except (FileNotFoundError, subprocess.CalledProcessError):
        return False


@pytest.mark.skipif(not _has_llvm(), reason="needs rustup component llvm-tools")
def test_only_a_test_that_runs_through_the_line_proves_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARGO_TARGET_DIR", raising=False)
    assert specmap.main(["--root", str(tree), "--quiet", "--prove"]) == 1
    proven = json.loads((tree / "proven.json").read_text())
    assert set(proven) == {"MQTT-4.7.3-1", "MQTT-3.1.1 4.7.1-1"}
    assert proven["MQTT-4.7.3-1"]["test"] == "an_empty_topic_is_refused"
