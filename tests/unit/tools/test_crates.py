"""The crate graph, the bans and the list of dependencies are held, each by its own check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import crates
import pytest

RULES: dict[str, Any] = {
    "graph": {"codec": [], "engine": ["codec"]},
    "clippy": {"crates": ["codec"]},
    "ban": [{"crates": ["codec", "engine"], "pattern": r"\bInstant\b", "reason": "no clock"}],
    "dependency": {"memchr": "finds bytes"},
    "refused": {"ring": "one library"},
    "licences": {"allowed": ["MIT", "ISC", "Apache-2.0"]},
}


def tree(tmp_path: Path, codec: str = "", engine: str = "", source: str = "") -> Path:
    for name, manifest in {"codec": codec, "engine": engine}.items():
        (tmp_path / "crates" / name / "src").mkdir(parents=True)
        (tmp_path / "crates" / name / "Cargo.toml").write_text(manifest)
    (tmp_path / "crates" / "engine" / "src" / "lib.rs").write_text(source)
    return tmp_path


def test_an_edge_against_the_arrow_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, codec="[dependencies]\ncasemate-engine.workspace = true\n")
    found = list(crates.graph_faults(root, RULES))
    assert found == ["crates/codec/Cargo.toml: codec must not know engine"]


def test_an_edge_along_the_arrow_passes(tmp_path: Path) -> None:
    root = tree(tmp_path, engine="[dependencies]\ncasemate-codec.workspace = true\n")
    assert list(crates.graph_faults(root, RULES)) == []


def test_an_edge_for_one_platform_only_counts_too(tmp_path: Path) -> None:
    manifest = "[target.'cfg(unix)'.dependencies]\ncasemate-engine.workspace = true\n"
    assert list(crates.graph_faults(tree(tmp_path, codec=manifest), RULES))


def test_a_crate_outside_the_graph_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "crates" / "extra").mkdir()
    (root / "crates" / "extra" / "Cargo.toml").write_text("")
    assert "no part of the graph" in "".join(crates.graph_faults(root, RULES))


def test_a_banned_name_in_shipped_source_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, source="use std::time::Instant;\n")
    found = list(crates.source_faults(root, RULES))
    assert found == ['crates/engine/src/lib.rs:1: "Instant" is banned here: no clock']


@pytest.mark.parametrize(
    "source",
    [
        "// An Instant would differ from run to run.\n",
        'const WORD: &str = "Instant";\n',
        "#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n",
    ],
)
def test_a_banned_name_in_words_or_tests_passes(tmp_path: Path, source: str) -> None:
    assert list(crates.source_faults(tree(tmp_path, source=source), RULES)) == []


def test_a_dependency_without_a_reason_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path, codec='[dependencies]\nmemchr = "2"\n[dev-dependencies]\nrand = "1"\n')
    found = list(crates.dependency_faults(root, RULES))
    assert found == ["crates/codec/Cargo.toml: rand has no line in tools/crates.toml that says why"]


def test_a_reason_without_a_dependency_is_named(tmp_path: Path) -> None:
    assert "memchr is listed" in "".join(crates.dependency_faults(tree(tmp_path), RULES))


def test_a_refused_crate_in_the_build_is_named() -> None:
    found = list(crates.tree_faults("ring\tv0.17.0\tISC\ncasemate-codec\tv0.1.0\t\n", RULES))
    assert found == ["ring is refused: one library"]


def test_a_crate_without_an_allowed_licence_is_named() -> None:
    found = list(crates.tree_faults("strange\tv1.0.0\tGPL-3.0-only", RULES))
    assert found == [
        'strange has the licence "GPL-3.0-only", which tools/crates.toml does not allow'
    ]


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT/GPL-2.0", True),
        ("GPL-2.0 OR MIT", True),
        ("GPL-2.0 AND MIT", False),
        ("ISC AND (GPL-2.0 OR Apache-2.0)", True),
        ("ISC AND (GPL-2.0 AND Apache-2.0)", False),
        ("MIT OR GPL-2.0 AND GPL-3.0", True),
        ("Apache-2.0 WITH Some-exception", False),
        ("", False),
        ("MIT MIT", False),
        ("(MIT", False),
    ],
)
def test_licences_are_read_as_they_are_written(expression: str, allowed: bool) -> None:
    assert crates.licence_allowed(expression, {"MIT", "ISC", "Apache-2.0"}) is allowed
