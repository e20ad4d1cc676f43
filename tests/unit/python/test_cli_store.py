"""`casemate store`: looks, verifies, compacts and copies, and never harms what is kept."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate import Broker
from casemate.cli.app import execute
from casemate.testing.template import copy_home
from tests.unit.python.commands import casemate
from tests.unit.python.test_store import (
    OTHER,
    REASON,
    configure,
    is_kept,
    keep,
    write_key,
)

Said = pytest.CaptureFixture[str]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home in which something is kept."""
    made = copy_home()
    configure(made)
    with Broker(made) as broker:
        keep(broker, "lab/1", "kept")
    yield made
    shutil.rmtree(made.parent)


def ask(capsys: Said, *words: str | Path, code: int = 0) -> Any:  # noqa: ANN401 - JSON.
    assert execute([*map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def refused(capsys: Said, *words: str | Path, code: int) -> tuple[str, str]:
    assert execute([*map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    said = json.loads(err)["error"]
    return said["message"], said["hint"]


def spoil(home: Path) -> Path:
    (segment,) = sorted((home / "store").glob("*.log"))[:1]
    content = bytearray(segment.read_bytes())
    content[200] ^= 1
    segment.write_bytes(content)
    return segment


def test_inspect_says_what_is_there_and_changes_nothing(home: Path, capsys: Said) -> None:
    before = contents(home / "store")
    found = ask(capsys, "store", "inspect", "--home", home)
    assert (found["folder"], found["served"]) == (str(home / "store"), False)
    assert found["commits"] == sum(one["commits"] for one in found["files"]) > 0
    assert found["next_commit"] == found["files"][-1]["last"] + 1
    assert (found["damage"], found["set_aside"]) == ([], [])
    assert {one["key"] for one in found["files"]} == {None}
    assert contents(home / "store") == before
    assert execute(["store", "inspect", "--home", str(home)]) == 0
    out = capsys.readouterr().out
    assert f"{home / 'store'} (no broker serves it)" in out
    assert "00000001.log" in out


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_a_served_store_may_be_looked_at_and_verified(home: Path, capsys: Said) -> None:
    with Broker(home):
        assert ask(capsys, "store", "inspect", "--home", home)["served"]
        assert ask(capsys, "store", "verify", "--home", home)["sound"]


def test_verify_names_damage_and_ends_with_1(home: Path, capsys: Said) -> None:
    assert execute(["store", "verify", "--home", str(home)]) == 0
    assert capsys.readouterr().out.startswith("sound ")
    with Broker(home) as broker:
        keep(broker, "lab/2", "later")
    segment = spoil(home)
    said = ask(capsys, "store", "verify", "--home", home, code=1)
    assert not said["sound"]
    assert any(segment.name in one for one in said["damage"])
    assert execute(["store", "verify", "--home", str(home)]) == 1
    assert f"damaged    {segment.name}" in capsys.readouterr().out


def test_a_file_that_was_set_aside_is_still_named(home: Path, capsys: Said) -> None:
    (segment,) = sorted((home / "store").glob("*.log"))[:1]
    content = bytearray(segment.read_bytes())
    content[0] ^= 1
    segment.write_bytes(content)
    with Broker(home) as broker:
        assert any(segment.name in one for one in broker.status().store.damage)
    said = ask(capsys, "store", "verify", "--home", home, code=1)
    assert said["set_aside"] == [f"{segment.name}.damaged"]


def test_compact_keeps_all_and_takes_less(home: Path, capsys: Said) -> None:
    for _ in range(3):
        with Broker(home):
            pass
    done = ask(capsys, "store", "compact", "--home", home)
    assert done["bytes_after"] < done["bytes_before"]
    assert done["files_gone"] >= 4
    with Broker(home) as broker:
        assert is_kept(broker) == "kept"
        said = refused(capsys, "store", "compact", "--home", home, code=1)
    assert f"{home / 'store'} is in use by process {os.getpid()}" in said[0]
    assert "stop that broker" in said[1]


def test_compact_puts_all_under_a_new_key(home: Path, capsys: Said) -> None:
    write_key(home, "new", OTHER)
    configure(home, 'key_file = "new"', f'insecure_plain = "{REASON}"')
    ask(capsys, "store", "compact", "--home", home)
    # Nothing in plain is left, so that it needs not be read any more.
    configure(home, 'key_file = "new"')
    found = ask(capsys, "store", "inspect", "--home", home)
    assert len({one["key"] for one in found["files"]} - {None}) == 1
    assert all(one["key"] for one in found["files"])
    with Broker(home) as broker:
        assert is_kept(broker) == "kept"


def test_a_copy_of_a_served_store_can_be_started_from(
    home: Path, tmp_path: Path, capsys: Said
) -> None:
    target = tmp_path / "copy"
    with Broker(home) as broker:
        keep(broker, "lab/2", "while it serves")
        done = ask(capsys, "store", "backup", target, "--home", home)
        keep(broker, "lab/2", "after the copy")
    assert done["files"] == len(list(target.iterdir()))
    assert done["bytes"] == sum(one.stat().st_size for one in target.iterdir())
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in target.iterdir()} == {0o600}
    assert [one.name for one in tmp_path.iterdir()] == ["copy"]
    shutil.rmtree(home / "store")
    shutil.copytree(target, home / "store")
    with Broker(home) as broker:
        assert is_kept(broker, "lab/1") == "kept"
        assert is_kept(broker, "lab/2") == "while it serves"


def test_a_copy_needs_no_key_and_stays_encrypted(home: Path, tmp_path: Path, capsys: Said) -> None:
    write_key(home, "new", OTHER)
    configure(home, 'key_file = "new"', f'insecure_plain = "{REASON}"')
    ask(capsys, "store", "compact", "--home", home)
    (home / "new").unlink()
    ask(capsys, "store", "backup", tmp_path / "copy", "--home", home)
    assert not any(b"lab/1" in one for one in contents(tmp_path / "copy").values())


def test_what_is_there_already_is_never_overwritten(
    home: Path, tmp_path: Path, capsys: Said
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("empty", "file", "link"):
        message, hint = refused(capsys, "store", "backup", tmp_path / name, "--home", home, code=2)
        assert message == f"{tmp_path / name} is there already"
        assert "not there yet" in hint
    assert (tmp_path / "file").read_text() == "mine"
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_copy_that_was_cut_short_is_made_anew(home: Path, tmp_path: Path, capsys: Said) -> None:
    left = tmp_path / ".copy.unfinished"
    left.mkdir()
    (left / "00000001.log").write_text("half")
    ask(capsys, "store", "backup", tmp_path / "copy", "--home", home)
    assert [one.name for one in tmp_path.iterdir()] == ["copy"]


def test_a_copy_into_nowhere_is_refused(home: Path, tmp_path: Path, capsys: Said) -> None:
    message, _ = refused(
        capsys, "store", "backup", tmp_path / "no" / "copy", "--home", home, code=2
    )
    assert message == f"there is no folder {tmp_path / 'no'}"


@pytest.mark.parametrize("words", [["inspect"], ["verify"], ["compact"], ["backup", "copy"]])
def test_a_store_that_is_not_there_is_said_to_be_none(
    home: Path, capsys: Said, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(home / "store")
    said = refused(capsys, "store", *words, "--home", home, code=3)
    assert "nothing is kept there yet" in said[0]
    assert not (home / "store").exists()
    configure(home, 'durability = "memory"')
    said = refused(capsys, "store", *words, "--home", home, code=3)
    assert 'durability = "memory"' in said[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["inspect"], ["verify"], ["compact"]])
def test_a_wrong_key_is_said_and_changes_nothing(
    home: Path, capsys: Said, words: list[str]
) -> None:
    write_key(home, "new", OTHER)
    configure(home, 'key_file = "new"', f'insecure_plain = "{REASON}"')
    ask(capsys, "store", "compact", "--home", home)
    before = contents(home / "store")
    configure(home)
    message, hint = refused(capsys, "store", *words, "--home", home, code=3)
    assert "is encrypted under key" in message
    assert "give that key" in hint
    assert contents(home / "store") == before


def test_the_command_line_alone_does_it_too(home: Path, tmp_path: Path) -> None:
    said = casemate("store", "backup", tmp_path / "copy", "--home", home)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("copied ")
