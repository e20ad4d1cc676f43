"""Tidy names each breach of the style, and nothing that is none.

Each rule is shown by the smallest file that breaks it and by its nearest neighbour that does not.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tidy

# In pieces, so that this file passes the tool that it tests.
UNFINISHED = "to" + "do!()"
NOT_WRITTEN = "NotImplemented" + "Error"
ONE_MACHINE = "/ho" + "me/somebody/key.pem"
RUST = "//! A heading.\n"
PYTHON = '"""A heading."""\n'


def faults(tmp_path: Path, name: str, text: str) -> list[str]:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [fault.says for fault in tidy.examine(path, tmp_path)]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.rs", "use std::fmt;\n", "has no heading"),
        ("a.rs", "//! Half of a sentence that\n//! goes on.\n", "not one whole sentence"),
        ("a.py", "import re\n", "has no heading"),
        ("a.rs", RUST + "// " + "x" * 98 + "\n", "is 101 columns wide"),
        ("a.toml", "# " + "x" * 99 + "\n", "is 101 columns wide"),
        ("a.rs", RUST + "\n" * 600, "has 601 lines"),
        ("a.rs", RUST + "fn long() {\n" + "    step();\n" * 69 + "}\n", "long has 71 lines"),
        ("a.py", PYTHON + "def long():\n" + "    step()\n" * 70, "long has 71 lines"),
        ("utils.rs", RUST, "names a drawer"),
        ("helpers/a.py", PYTHON, "names a drawer"),
        ("a.rs", RUST + "mod common;\n", "names a drawer"),
        ("a.rs", RUST + "pub(crate) struct SessionManager {}\n", "names a drawer"),
        ("a.py", PYTHON + "class Handler2:\n    x = 1\n", "names a drawer"),
        ("a.rs", RUST + f"fn later() {{ {UNFINISHED} }}\n", "unfinished work"),
        ("a.py", PYTHON + f"raise {NOT_WRITTEN}\n", "unfinished work"),
        ("a.md", f"Put it at {ONE_MACHINE}.\n", "a path of one machine"),
        ("a.rs", RUST + "// let old = compute();\n", "commented-out code"),
        ("a.rs", RUST + "// if old {\n", "commented-out code"),
        ("a.rs", RUST + "// self.count += 1;\n", "commented-out code"),
        ("a.py", PYTHON + "# value = compute()\n", "commented-out code"),
        ("a.py", PYTHON + "# if value:\n", "commented-out code"),
        ("a.rs", RUST + "fn a() {} \n", "ends in blanks"),
        ("a.rs", RUST + "#[test]\nfn works() {}\n", "is not a sentence"),
        ("a.rs", RUST + "#[test]\n#[ignore]\nfn it_is_slow() {}\n", "without its reason"),
        ("a.py", PYTHON + "def broken(:\n", "does not parse"),
    ],
)
def test_each_breach_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    found = faults(tmp_path, name, text)
    assert any(says in fault for fault in found), found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.rs", RUST + "fn a() {}\n"),
        ("a.py", "#!/usr/bin/env python3\n" + PYTHON),
        ("__init__.py", ""),
        ("a.rs", RUST + "// " + "x" * 97 + "\n"),
        ("a.rs", RUST + "\n" * 599),
        ("a.rs", RUST + "fn long() {\n" + "    step();\n" * 68 + "}\n"),
        ("a.py", PYTHON + 'def long():\n    """Says\n' + "    so\n" * 80 + '    """\n'),
        ("a.rs", RUST + "// The lock is taken first, then the queue; both are short.\n"),
        ("a.rs", RUST + "/// let shown = example();\nfn a() {}\n"),
        ("a.rs", RUST + 'const SHOWN: &str = "\n// let shown = 1;\n";\n'),
        ("a.py", PYTHON + "# A sentence: why this is so.\n"),
        ("a.py", PYTHON + 'SHOWN = """\n# value = 1\n"""\n'),
        ("a.py", PYTHON + "import x  # noqa: F401\n"),
        ("a.rs", RUST + "#[test]\nfn an_empty_topic_is_refused() {}\n"),
        ("a.rs", RUST + '#[test]\n#[ignore = "takes an hour"]\nfn it_is_slow() {}\n'),
        ("a.md", "The folder is /etc/casemate or ~/home/work.\n"),
        ("a.md", "x" * 200 + "\n"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, name: str, text: str) -> None:
    assert faults(tmp_path, name, text) == []


def test_a_file_that_is_not_utf8_is_named_and_does_not_stop_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.rs"
    path.write_bytes(b"//! A heading.\n\xff\n")
    assert [fault.says for fault in tidy.examine(path, tmp_path)] == ["is not UTF-8 (byte 15)"]


def test_what_tools_wrote_is_not_examined(tmp_path: Path) -> None:
    for name in ("target/a.rs", ".venv/lib/a.py", "fuzz/corpus/x/a.toml", "src/a.rs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    assert [path.name for path in tidy.files(tmp_path)] == ["a.rs"]


def test_the_ratchet_holds_what_is_known_and_refuses_growth() -> None:
    grown = tidy.Fault("a.rs", 1, "has 700 lines", key="a.rs", size=700)
    held = tidy.Fault("b.rs", 1, "has 650 lines", key="b.rs", size=650)
    counted, tightened = tidy.weigh([grown, held], {"a.rs": 690, "b.rs": 660, "gone.rs": 900})
    assert counted == [grown]
    assert tightened == {"a.rs": 690, "b.rs": 650}


def test_a_fault_without_a_size_cannot_be_held_by_the_ratchet() -> None:
    fault = tidy.Fault("a.rs", 1, "ends in blanks")
    assert tidy.weigh([fault], {"": 1000})[0] == [fault]


def test_tighten_writes_smaller_sizes_and_never_larger_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratchet = tmp_path / "ratchet.json"
    ratchet.write_text(json.dumps({"lines": {"a.rs": 800, "b.rs": 601}, "other": 3}))
    (tmp_path / "a.rs").write_text(RUST + "\n" * 699)
    (tmp_path / "b.rs").write_text(RUST + "\n" * 601)
    monkeypatch.setattr(tidy, "RATCHET", ratchet)
    assert tidy.main(["--root", str(tmp_path), "--tighten"]) == 1
    assert json.loads(ratchet.read_text()) == {"lines": {"a.rs": 700, "b.rs": 601}, "other": 3}
