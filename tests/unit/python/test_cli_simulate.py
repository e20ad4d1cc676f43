"""`casemate simulate`: a fleet that its file describes, bounded, and only against this machine."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate import Broker
from casemate.cli import simulate
from casemate.cli.app import execute
from casemate.cli.fleet import Payload, payloads, read_fleet
from casemate.errors import ConfigurationError
from casemate.home import Home
from tests.unit.python.commands import ROOT, running

FLEET = """\
[[devices]]
name = "t-{n}"
count = 3
role = "sensor"

[[devices.publish]]
topic = "devices/{name}/temp"
every_s = 0.02
qos = 1

[[devices]]
name = "desk"
role = "console"

[[devices.subscribe]]
filter = "devices/#"
qos = 1
"""
ONE = '[[devices]]\nname = "a"\n'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "home"
    Home.init(folder)
    (folder / "casemate.toml").write_text(
        '[[listeners]]\nkind = "tls"\nport = 0\n[[listeners]]\nkind = "tcp"\nport = 0\n'
    )
    with Broker(folder):
        yield folder


def ran(
    capsys: pytest.CaptureFixture[str], home: Path, text: str, *options: str
) -> tuple[int, dict[str, Any]]:
    file = home.parent / "fleet.toml"
    file.write_text(text)
    code = execute(["simulate", str(file), "--home", str(home), "--json", *options])
    lines = capsys.readouterr().out.splitlines()
    return code, json.loads(lines[-1]) if lines else {}


def test_a_fleet_ends_when_its_messages_are_sent(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, tally = ran(capsys, home, FLEET, "--enrol", "--count", "12")
    assert code == 0
    assert (tally["devices"], tally["connected"], tally["sent"]) == (4, 0, 12)
    assert (tally["refused"], tally["failed"], tally["problems"]) == (0, 0, [])
    # Who listened has heard all but what was on its way when the last one was taken.
    assert 0 < tally["received"] <= 12
    with Home.open(home).accounts() as store:
        assert {"t-1", "t-2", "t-3", "desk"} <= {one.name for one in store.list()}


def test_a_fleet_ends_when_its_time_is_over(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, tally = ran(capsys, home, FLEET, "--enrol", "--seconds", "0.5")
    assert code == 0
    assert tally["connected"] == 0


def test_a_device_that_the_home_does_not_know_is_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home.parent / "fleet.toml"
    file.write_text(FLEET)
    assert execute(["simulate", str(file), "--home", str(home)]) == 3
    assert 'there is no identity "t-1"' in capsys.readouterr().err
    file.write_text(ONE)
    assert execute(["simulate", str(file), "--home", str(home), "--enrol"]) == 2
    assert "role" in capsys.readouterr().err


def test_what_the_broker_refuses_is_counted_and_the_others_go_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FLEET.replace("devices/{name}/temp", "elsewhere/{name}")
    code, tally = ran(capsys, home, text, "--enrol", "--count", "6")
    assert code == 1
    assert (tally["sent"], tally["refused"], tally["failed"]) == (0, 6, 0)
    assert 1 <= len(tally["problems"]) <= 3


def test_users_prove_themselves_by_password_in_plaintext_on_loopback(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "quiet otter walks home"
    Home.open(home).add_user("ann", ["operator"], secret)
    (home.parent / "secret").write_text(f"{secret}\n")
    (port,) = (one.port for one in _listeners(home) if one.kind == "tcp")
    text = (
        f'host = "localhost"\nport = {port}\nplaintext = true\n{ONE}username = "ann"\n'
        'password_file = "secret"\n[[devices.publish]]\ntopic = "a"\nevery_s = 0.01\n'
    )
    code, tally = ran(capsys, home, text, "--count", "3")
    assert (code, tally["sent"]) == (0, 3)
    (home.parent / "secret").write_text("wrong\n")
    code, tally = ran(capsys, home, text, "--count", "3")
    assert (code, tally["failed"]) == (1, 1)
    assert secret not in json.dumps(tally)


def _listeners(home: Path) -> tuple[Any, ...]:
    from casemate.broker import read_status

    return read_status(home).listeners


def test_a_fleet_that_nobody_answers_ends_at_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Home.open(home).add_device("a", "sensor")
    code, tally = ran(capsys, home, f'host = "127.0.0.1"\nport = 1\n{ONE}')
    assert (code, tally["failed"], tally["connected"]) == (1, 1, 0)


def test_the_example_of_the_guide_is_a_fleet(tmp_path: Path) -> None:
    guide = (ROOT / "docs/guides/simulate.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    file = tmp_path / "fleet.toml"
    file.write_text(example)
    assert len(list(read_fleet(file).members())) == 21


def test_ctrl_c_ends_a_fleet_in_order(home: Path) -> None:
    file = home.parent / "fleet.toml"
    file.write_text(FLEET)
    with running("simulate", file, "--home", home, "--enrol") as fleet:
        fleet.until("4 of 4 devices connected")
        assert fleet.stop() == 0
        assert "0 of 4 devices connected" in fleet.text
        assert "Traceback" not in fleet.text


@pytest.mark.parametrize("host", ["192.0.2.1", "broker.example", "::", "0.0.0.0"])  # noqa: S104
def test_a_broker_elsewhere_is_loaded_by_nobody_who_did_not_say_so(
    home: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home.parent / "fleet.toml"
    file.write_text(f'host = "{host}"\nport = 1\n{ONE}')
    assert execute(["simulate", str(file), "--home", str(home)]) == 2
    assert "--yes-really-off-loopback" in capsys.readouterr().err
    opened = Home.open(home)
    assert simulate._address(read_fleet(file), opened, yes_really=True) == (host, 1)
    assert capsys.readouterr().err == f"warning: the fleet loads {host}:1\n"


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        ("", 0, "devices is missing", ""),
        ("devices = []\n", 1, "no devices", "[[devices]]"),
        ("[[devices]]\n", 1, "name is missing in [[devices]]", "add name"),
        (ONE + "coutn = 2\n", 3, "unknown key 'coutn' in [[devices]]", '"count"'),
        (ONE + "count = 2\n", 2, "{n}", "name-{n}"),
        (ONE + "count = 1_001\n", 3, "at most 1,000", ""),
        (ONE.replace('"a"', '"a/b"'), 2, "cannot be the name", "letters"),
        (ONE + ONE, 4, 'two devices are "a"', "apart"),
        (ONE + 'username = "u"\n', 3, "needs a password_file", "both"),
        (f'plaintext = true\nhost = "::1"\nport = 1\n{ONE}', 4, "needs a user name", ""),
        ('host = "::1"\n' + ONE, 1, "belong together", "both"),
        (ONE + '[[devices.publish]]\ntopic = "a"\nqso = 1\n', 5, "in [[devices.publish]]", '"qos"'),
        (ONE + '[[devices.publish]]\ntopic = "a"\nevery_s = 0.0\n', 5, "every_s", "lowest"),
        (ONE + '[[devices.publish]]\ntopic = "a"\nevery_s = nan\n', 5, "every_s", ""),
        (ONE + '[[devices.publish]]\ntopic = "a"\nqos = 3\n', 5, "at most 2", ""),
        (
            ONE + '[[devices.publish]]\ntopic = "a"\n[devices.publish.payload]\nshap = "text"\n',
            6,
            "in [devices.publish.payload]",
            '"shape"',
        ),
        (
            ONE + '[[devices.publish]]\ntopic = "a"\npayload = { low = 2, high = 1 }\n',
            5,
            "high is lower",
            "exchange",
        ),
        (
            ONE + '[[devices.publish]]\ntopic = "a"\npayload = { shape = "tekst" }\n',
            5,
            "expected",
            '"text"',
        ),
    ],
)
def test_what_is_wrong_in_a_fleet_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, words: str, hint: str
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_fleet(file)
    assert words in str(caught.value)
    assert (caught.value.line or 0) == line
    assert hint in caught.value.hint


def first(count: int, seed: int = 1, **described: Any) -> list[bytes]:  # noqa: ANN401
    series = payloads(Payload(**described), random.Random(seed))
    return list(itertools.islice(series, count))


def test_numbers_wander_between_their_bounds_and_repeat_with_their_seed() -> None:
    values = [float(one) for one in first(500, low=18.0, high=24.0)]
    assert all(18 <= one <= 24 for one in values)
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) <= 0.3 + 0.1
    assert first(9, low=0.0, high=1.0) == first(9, low=0.0, high=1.0)
    assert first(9, 1, low=0.0, high=1.0) != first(9, 2, low=0.0, high=1.0)
    assert all(one.isdigit() for one in first(9, decimals=0))


def test_the_other_shapes_say_what_they_should() -> None:
    assert first(3, shape="counter") == [b"0", b"1", b"2"]
    assert set(first(50, shape="switch")) == {b"on", b"off"}
    assert first(2, shape="text", text="hello") == [b"hello", b"hello"]
    assert [len(one) for one in first(2, shape="bytes", size=7)] == [7, 7]
    assert first(2, shape="counter", json_key="n") == [b'{"n": 0}', b'{"n": 1}']
