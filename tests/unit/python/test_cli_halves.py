"""Ctrl-C while a command changes a home: all of it was done and told, or none of it.

The process interrupts itself at the n-th time that it touches a file.
"""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from casemate import config
from casemate.home import Home
from tests.unit.python.commands import PATIENCE_S, environment

INTERRUPTED = 130

TOUCHES = """
import os, signal, sys
left = int(sys.argv.pop(1))
home = sys.argv[sys.argv.index("--home") + 1]

def hear(event, arguments):
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "sqlite3.connect"):
        if any(str(one).startswith(os.path.dirname(home)) for one in arguments[:2]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hear)
from casemate.cli.__main__ import main
main()
"""


def interrupted(moment: int, home: Path, *words: str) -> tuple[bool, str]:
    """Runs a command that is interrupted; says whether it was, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", TOUCHES, str(moment), *words, "--home", str(home)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stderr == ""
    # Fewer files were touched: it was never interrupted.
    assert done.returncode in (0, INTERRUPTED)
    return done.returncode == INTERRUPTED, done.stdout


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("halves") / "home"
    Home.init(folder)
    Home.open(folder).add_device("old", "sensor")
    return folder


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "home"))


def accounts(home: Path) -> set[str]:
    with Home.open(home).accounts() as store:
        return {account.name for account in store.list()}


def identities(home: Path) -> set[str]:
    return {one.name for one in (home / "identities").iterdir()}


@pytest.mark.parametrize("moment", [1, 10, 18, 19, 20, 30])
def test_a_device_is_added_whole_or_not_at_all(moment: int, home: Path) -> None:
    interrupted_, said = interrupted(moment, home, "device", "add", "new", "--role", "sensor")
    is_there = "new" in accounts(home)
    assert ("new" in identities(home)) == is_there
    assert bool(said) == is_there
    assert is_there or interrupted_
    assert not [name for name in identities(home) if name.startswith(".")]


@pytest.mark.parametrize("moment", [1, 2, 8])
def test_a_device_is_removed_whole_or_not_at_all(moment: int, home: Path) -> None:
    _, said = interrupted(moment, home, "device", "remove", "old")
    is_there = "old" in accounts(home)
    assert ("old" in identities(home)) == is_there
    assert bool(said) != is_there


@pytest.mark.parametrize("moment", [1, 6, 16])
def test_a_password_that_was_set_was_shown(moment: int, home: Path) -> None:
    words = ["user", "add", "ada", "--role", "operator", "--generate", "--json"]
    _, said = interrupted(moment, home, *words)
    assert bool(said) == ("ada" in accounts(home))
    if said:
        with Home.open(home).accounts() as store:
            assert store.verify("ada", json.loads(said)["password"]).name == "ada"


@pytest.mark.parametrize("moment", [1, 10, 11, 12, 14])
def test_a_renewed_certificate_has_its_key(moment: int, home: Path) -> None:
    before = (home / config.SERVER_CERTIFICATE).read_bytes()
    _, said = interrupted(moment, home, "renew")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / config.SERVER_CERTIFICATE, home / config.SERVER_KEY)
    assert bool(said) == ((home / config.SERVER_CERTIFICATE).read_bytes() != before)


@pytest.mark.parametrize("moment", [1, 30, 75, 80])
def test_a_home_is_made_whole_or_not_at_all(moment: int, tmp_path: Path) -> None:
    home = tmp_path / "home"
    _, said = interrupted(moment, home, "init")
    assert bool(said) == home.exists()
    assert [one for one in tmp_path.iterdir() if one != home] == []
    if home.exists():
        assert "operator" in accounts(home)
        for path in re.findall(r"^made +(.+)$", said, re.MULTILINE):
            assert Path(path).exists()
