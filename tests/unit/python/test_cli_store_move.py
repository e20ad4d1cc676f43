"""`casemate store export` and `import`: all that is kept goes over, and nothing that cannot be."""

from __future__ import annotations

import base64
import json
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from casemate import Broker, Will
from casemate.client import Properties
from casemate.testing.template import copy_home
from tests.unit.python.commands import casemate
from tests.unit.python.test_cli_store import Said, ask, contents, refused
from tests.unit.python.test_store import OTHER, configure, is_kept, write_key

Lines = list[dict[str, Any]]

PROPERTIES = Properties(content_type="text/plain", user=(("unit", "C"),), correlation_data=b"\0\1")


def lasting(broker: Broker, client_id: str, **options: Any) -> Any:  # noqa: ANN401 - a client.
    """Gives a client whose session lasts."""
    return broker.client(
        "operator",
        client_id=client_id,
        clean_start=False,
        session_expiry_s=3_600,
        reconnect=False,
        **options,
    ).blocking()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which there is something of everything that is kept."""
    home = copy_home()
    configure(home)
    with Broker(home) as broker:
        with lasting(broker, "reader", receive_max=2, acknowledge_by_hand=True) as one:
            one.subscribe("lab/#", qos=2)
            one.subscribe("other/+", qos=1, no_local=True)
            with broker.client("operator", client_id="writer").blocking() as writer:
                for number in range(5):
                    payload, qos = str(number), 1 + number % 2
                    writer.publish("lab/1", payload, qos=qos, properties=PROPERTIES)
                writer.publish("kept/1", "kept", qos=1, retain=True, properties=PROPERTIES)
            # Two are under way for good, as nobody acknowledges them; three wait behind.
            one.publish("lab/own", "5", qos=1)
        with lasting(broker, "worker") as one:
            one.subscribe("$share/crew/jobs/#", qos=1)
        with broker.client("operator", client_id="boss").blocking() as boss:
            boss.publish("jobs/1", "dig", qos=1)
        will = Will("lab/gone", b"too bad", qos=1, delay_s=600)
        left = lasting(broker, "mortal", will=will)
        left.connect()
    # Nobody has said goodbye for it.
    left.close()
    yield home
    shutil.rmtree(home.parent)


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "home"
    shutil.copytree(made, copied)
    return copied


def exported(home: Path, capsys: Said, name: str = "lines.jsonl") -> tuple[Path, Lines]:
    file = home.parent / name
    ask(capsys, "store", "export", file, "--home", home)
    return file, [json.loads(line) for line in file.read_text().splitlines()]


def of(lines: Lines, kind: str) -> Lines:
    return [one for one in lines if one.get("kind") == kind]


def session(lines: Lines, client_id: str) -> dict[str, Any]:
    (found,) = (one for one in of(lines, "session") if one["client_id"] == client_id)
    return found


def test_an_export_says_all_that_is_kept(home: Path, capsys: Said) -> None:
    file, lines = exported(home, capsys)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lines[0]["casemate_store"] == 1
    assert lines[-1]["kind"] == "end"
    assert lines[-1]["sessions"] == len(of(lines, "session")) == 3
    reader = session(lines, "reader")
    assert (reader["name"], reader["expiry_s"], reader["bound"]) == ("operator", 3_600, False)
    assert [(one["filter"], one["qos"], one["no_local"]) for one in reader["subscriptions"]] == [
        ("lab/#", 2, False),
        ("other/+", 1, True),
    ]
    mortal = session(lines, "mortal")
    assert mortal["will"]["message"]["topic"] == "lab/gone"
    assert mortal["will"]["delay_s"] == 600
    assert [one["awaits"] for one in reader["exchanges"]] == ["puback", "pubrec"]
    at = lines.index(reader)
    waiting = lines[at + 1 : at + 1 + reader["waiting"]]
    payloads = [base64.b64decode(one["message"]["payload"]) for one in waiting]
    assert payloads == [b"2", b"3", b"4", b"5"]
    assert session(lines, "worker")["waiting"] == 1
    (job,) = (one for one in of(lines, "waiting") if one["share"])
    assert job["share"] == ["crew", "jobs/#"]
    kept = [one for one in of(lines, "retained") if one["message"]["topic"] == "kept/1"]
    assert base64.b64decode(kept[0]["message"]["payload"]) == b"kept"
    assert b"text/plain" in base64.b64decode(kept[0]["message"]["properties"])


def test_what_was_exported_can_be_imported_and_is_the_same(home: Path, capsys: Said) -> None:
    file, lines = exported(home, capsys)
    shutil.rmtree(home / "store")
    done = ask(capsys, "store", "import", file, "--home", home)
    assert done["sessions"] == lines[-1]["sessions"]
    assert stat.S_IMODE((home / "store").stat().st_mode) == 0o700
    assert sorted(one.name for one in home.iterdir() if "unfinished" in one.name) == []
    _, again = exported(home, capsys, "again.jsonl")
    assert again[1:] == lines[1:]


def test_clients_go_on_from_an_import_as_if_nothing_had_been(home: Path, capsys: Said) -> None:
    file, _ = exported(home, capsys)
    shutil.rmtree(home / "store")
    write_key(home, "k", OTHER)
    configure(home, 'key_file = "k"')
    ask(capsys, "store", "import", file, "--home", home)
    assert not any(b"lab/1" in one for one in contents(home / "store").values())
    with Broker(home) as broker:
        with lasting(broker, "reader") as one:
            assert one.session_present
            got = [message for _, message in zip(range(6), one.messages, strict=False)]
        assert [message.text for message in got] == ["0", "1", "2", "3", "4", "5"]
        assert got[0].properties.content_type == "text/plain"
        assert got[0].properties.user == (("unit", "C"),)
        with lasting(broker, "worker") as one:
            assert next(iter(one.messages)).text == "dig"
        assert is_kept(broker, "kept/1") == "kept"


def test_a_served_store_is_neither_exported_nor_imported_into(home: Path, capsys: Said) -> None:
    file, _ = exported(home, capsys)
    with Broker(home):
        said = refused(capsys, "store", "export", home / "x", "--home", home, code=1)
        assert "is in use" in said[0]
        said = refused(capsys, "store", "import", file, "--home", home, code=1)
        assert "a broker serves" in said[0]
    assert not (home / "x").exists()


def test_nothing_that_is_there_is_overwritten(home: Path, capsys: Said) -> None:
    file, _ = exported(home, capsys)
    before, text = contents(home / "store"), file.read_text()
    said = refused(capsys, "store", "export", file, "--home", home, code=2)
    assert said[0] == f"{file} is there already"
    said = refused(capsys, "store", "import", file, "--home", home, code=3)
    assert "holds something already" in said[0]
    assert (contents(home / "store"), file.read_text()) == (before, text)


def replace(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for name in path:
            found = found[int(name) if name.isdecimal() else name]
        found[last] = value

    return change


UNFIT: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("session", replace("subscriptions.0.filter", "a/#/b"), "is no topic filter"),
    ("session", replace("subscriptions.0.filter", "$share//a"), "is no topic filter"),
    ("session", replace("subscriptions.0.id", 268_435_456), "below 268,435,456"),
    ("session", replace("subscriptions.0.qos", 3), "the QoS is 0, 1 or 2"),
    ("session", replace("client_id", "x" * 70_000), "longer than 65,535"),
    ("session", replace("client_id", 5), "client_id"),
    ("session", replace("expiry_s", -1), "expiry_s"),
    ("session", replace("expiry_s", 2**32), "expiry_s"),
    ("session", replace("incoming", [0]), "1 to 65,535"),
    ("session", replace("first_exchange", 2**63), "more exchanges than packet identifiers"),
    ("session reader", replace("exchanges.0.awaits", "pubcomp"), "does not fit"),
    ("session reader", replace("exchanges.0.awaits", "later"), "puback, pubrec"),
    ("session mortal", replace("will.message.topic", "a/+"), "is no topic"),
    ("session", replace("waiting", 9_999), "messages behind the session"),
    ("session", replace("waiting", -1), "number of lines"),
    ("session", replace("more", 1), "missing or unknown: 'more'"),
    ("waiting", replace("qos", 0), "QoS 1 or 2"),
    ("waiting", replace("subscription_ids", [0]), "1 to 268,435,455"),
    ("waiting", replace("message.topic", ""), "is no topic"),
    ("waiting", replace("message.payload", "%%%"), "base64"),
    ("retained", replace("message.topic", "a/#"), "is no topic"),
    ("retained", replace("message.payload", ""), "has a payload"),
    ("retained", replace("message.properties", "AQ=="), "properties do not read"),
    # An alias belongs to one connection, and is never kept.
    ("retained", replace("message.properties", "IwAB"), "properties do not read"),
    ("retained", replace("kind", "sessions"), "expected session, retained or end"),
    ("end", replace("sessions", 9), "the end counts"),
]


@pytest.mark.parametrize(("kind", "change", "message"), UNFIT)
def test_what_no_broker_can_have_kept_is_refused_with_its_line(
    home: Path, capsys: Said, kind: str, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    file, lines = exported(home, capsys)
    kind, _, client_id = kind.partition(" ")
    at = next(
        number
        for number, one in enumerate(lines)
        if one.get("kind") == kind and client_id in (one.get("client_id"), "")
    )
    change(lines[at])
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    shutil.rmtree(home / "store")
    said, hint = refused(capsys, "store", "import", file, "--home", home, code=3)
    assert message in said
    assert said.startswith(f"{file}:")
    assert hint == "nothing was imported"
    assert not (home / "store").exists()
    assert [one.name for one in home.iterdir() if "unfinished" in one.name] == []


TEXTS: list[tuple[Callable[[str], str], str]] = [
    (lambda _: "", "expected an export of format 1"),
    (lambda _: "{}\n", "expected an export of format 1"),
    (lambda _: '{"casemate_store": 2}\n', "found 2"),
    (lambda _: "no json\n", "expected a JSON object"),
    (lambda _: "[1]\n", "expected a JSON object"),
    (lambda text: text[: text.rindex('{"kind": "end"')], "cut short"),
    (lambda text: text + '{"kind": "end"}\n', "nothing behind the end"),
    (lambda text: text + "\udcff", "cannot be read"),
]


@pytest.mark.parametrize(("change", "message"), TEXTS)
def test_a_file_that_is_no_whole_export_is_refused(
    home: Path, capsys: Said, change: Callable[[str], str], message: str
) -> None:
    file, _ = exported(home, capsys)
    file.write_bytes(change(file.read_text()).encode(errors="surrogateescape"))
    shutil.rmtree(home / "store")
    said = refused(capsys, "store", "import", file, "--home", home, code=3)
    assert message in said[0]
    assert not (home / "store").exists()


def test_two_sessions_of_one_client_are_refused(home: Path, capsys: Said) -> None:
    file, lines = exported(home, capsys)
    twin = {**session(lines, "worker"), "waiting": 0}
    lines.insert(1, twin)
    lines[-1]["sessions"] += 1
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    shutil.rmtree(home / "store")
    said = refused(capsys, "store", "import", file, "--home", home, code=3)
    assert 'a second session "worker"' in said[0]


def test_the_command_line_alone_does_it_too(home: Path) -> None:
    said = casemate("store", "export", home.parent / "a.jsonl", "--home", home)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("exported   3 sessions, 5 messages that wait, ")
    shutil.rmtree(home / "store")
    said = casemate("store", "import", home.parent / "a.jsonl", "--home", home)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("imported   3 sessions, 5 messages that wait, ")
