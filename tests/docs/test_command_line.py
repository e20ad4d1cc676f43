"""Each command of the command line's guide runs as it stands, in a home with a real broker.

`broker.example` is a throw-away broker, `desk` an identity and `ada` a user of it; what `sub`
prints is stored before, and somebody answers what `rr` asks.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate.cli.app import execute
from casemate.errors import NotConnected
from casemate.testing import ThrowAwayBroker
from tests.docs.test_papers import ROOT, commands

GUIDE = ROOT / "docs" / "guides" / "command-line.md"
COMMANDS = list(dict.fromkeys(commands(GUIDE)))
PATIENCE_S = 30


@pytest.fixture(scope="module")
def broker() -> Iterator[ThrowAwayBroker]:
    with ThrowAwayBroker(kinds=("tls", "wss")) as one:
        one.identity("desk")
        yield one


@pytest.fixture(scope="module")
def answering(broker: ThrowAwayBroker) -> Iterator[None]:
    """Stores what the guide looks at, and answers what it asks."""
    with broker.client("other").blocking() as client:
        client.publish("home/t7/temp", "21.5", retain=True, qos=1)

        def answer() -> None:
            try:
                for request in messages:
                    client.reply(request, "fine")
            except NotConnected:
                return

        with client.subscription("home/t7/ask", qos=1) as messages:
            thread = threading.Thread(target=answer)
            thread.start()
            yield
            client.close()
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def folder(broker: ThrowAwayBroker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("guide")
    (made / "ca.crt").write_bytes(broker.ca_file.read_bytes())
    (made / "password").write_text(broker.add_user("ada"))
    return made


def on_this_machine(command: str, broker: ThrowAwayBroker) -> str:
    """Puts the throw-away broker in the place of the guide's."""
    tls, wss = broker.listening().port, broker.listening("wss").port
    command = command.replace("-h broker.example", f"-h localhost -p {tls}")
    command = re.sub(r"(wss://\S*)broker\.example", rf"\1localhost:{wss}", command)
    return command.replace("broker.example", f"localhost:{tls}")


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) > 12
    assert all(one.startswith("casemate ") for one in COMMANDS)


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_guide_runs(
    command: str, broker: ThrowAwayBroker, folder: Path
) -> None:
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "CASEMATE_HOME": str(broker.home),
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT / "python"),
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", on_this_machine(command, broker)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    words = command.split()
    if words[1] in ("sub", "rr"):
        assert ("fine" if words[1] == "rr" else "21.5") in done.stdout
    if "--to" in words:
        assert (folder / ".local/share/man/man1/casemate-pub.1").exists()


def test_the_guide_says_what_an_error_looks_like(
    capsys: pytest.CaptureFixture[str], broker: ThrowAwayBroker
) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    at = ["-h", "localhost", "-p", str(broker.listening().port), "--cafile", str(broker.ca_file)]
    assert execute(["pub", *at, "-u", "x", "-P", "y", "a", "b", "--json"]) == 1
    said = json.loads(capsys.readouterr().err)
    assert said["error"].keys() == json.loads(shown)["error"].keys()
    assert said["error"]["code"] == json.loads(shown)["error"]["code"]
