"""`casemate config`: what is in force, where it comes from, and what a running broker does."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from casemate import Broker, config
from casemate.broker import Listening, Reload, Status, StoreStatus
from casemate.cli.app import execute
from casemate.cli.drift import drift, unconfigured
from casemate.config import shape, variables
from casemate.config.schema import FILE_NAME
from casemate.home import Home
from tests.unit.python.commands import ROOT

TLS = '[[listeners]]\nkind = "tls"\nport = 8883\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "casemate.toml").write_text(TLS + "[limits]\nreceive_max = 7\n")
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path))
    return tmp_path


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return {row["option"]: row for row in json.loads(capsys.readouterr().out)}


def test_check_says_that_a_file_is_valid(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["config", "check"]) == 0
    assert f"valid      {home}/casemate.toml" in capsys.readouterr().out
    assert execute(["config", "check", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["valid"] is True
    assert said["listeners"] == ["tls"]


def test_check_ends_with_3_and_names_the_line_or_the_variable(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEMATE_SHARD", "1")
    assert execute(["config", "check"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "error: CASEMATE_SHARD: no such option",
        "hint: did you mean CASEMATE_SHARDS?",
    ]
    monkeypatch.delenv("CASEMATE_SHARD")
    (home / "casemate.toml").write_text(TLS + "prot = 1\n")
    assert execute(["config", "check", "--json"]) == 3
    assert f"{home}/casemate.toml:4: unknown key" in capsys.readouterr().err


def test_check_takes_a_draft_in_place_of_the_file_in_force(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = home / "draft.toml"
    draft.write_text("shards = 999\n" + TLS)
    assert execute(["config", "check", str(draft)]) == 3
    assert "draft.toml:1: " in capsys.readouterr().err
    assert execute(["config", "check", str(home / "missing.toml")]) == 3
    assert "missing" in capsys.readouterr().err


def test_show_names_the_source_of_each_value(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASEMATE_LISTENERS__0__HOST", "::1")
    assert execute(["config", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"limits\.receive_max = 7 +# casemate\.toml:5$", one) for one in lines)
    assert any(re.match(r'listeners\.0\.host = "::1" +# CASEMATE_LIS', one) for one in lines)
    assert any(re.match(r"shards = 1 +# default$", one) for one in lines)
    assert not any("server_reference" in one or "listeners.0.mode" in one for one in lines)


def test_show_all_names_every_option_and_its_variable(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "casemate.toml").write_text(
        TLS + '[[listeners]]\nkind = "ws"\nport = 1\n[[listeners]]\nkind = "unix"\nsocket = "s"\n'
    )
    assert execute(["config", "show", "--all", "--json"]) == 0
    found = rows(capsys)
    named = {re.sub(r"\.\d+\.", ".", name) for name in found}
    assert named == {f"{one.section}.{one.name}".lstrip(".") for one in shape.options()}
    assert found["listeners.2.socket"]["variable"] == "CASEMATE_LISTENERS__2__SOCKET"
    assert found["listeners.2.socket"]["value"] == str(home / "s")


def test_diff_shows_only_what_is_set_otherwise_than_by_default(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "casemate.toml").write_text(
        "shards = 1\n" + TLS + 'client_certificates = "optional"\n[limits]\nreceive_max = 7\n'
    )
    assert execute(["config", "diff", "--json"]) == 0
    found = rows(capsys)
    assert set(found) == {"listeners.0.kind", "listeners.0.port", "limits.receive_max"}
    assert found["limits.receive_max"]["default"] == 1_024
    assert execute(["config", "diff"]) == 0
    assert "# casemate.toml:7; default: 1024" in capsys.readouterr().out


def test_diff_with_no_broker_running_ends_with_1(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["config", "diff", "--running"]) == 1
    assert "no broker serves" in capsys.readouterr().err


def test_diff_finds_what_a_running_broker_does_not_do_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    Home.init(home)
    file = home / "casemate.toml"
    file.write_text('[[listeners]]\nkind = "tls"\nport = 0\n')
    with Broker(home):
        assert execute(["config", "diff", "--running", "--home", str(home)]) == 0
        assert "as configured" in capsys.readouterr().out
        file.write_text('[[listeners]]\nkind = "tls"\nport = 0\nclient_certificates = "required"\n')
        assert execute(["config", "diff", "--running", "--home", str(home), "--json"]) == 1
        (difference,) = json.loads(capsys.readouterr().out)["differences"]
    assert difference.startswith("listener tls is tls on 127.0.0.1:")
    assert difference.endswith("on 127.0.0.1:a free port (certificates required)")


REASON = "the network is a cable"


def test_a_broker_keeps_its_variables_through_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    Home.init(home)
    for position in range(2):
        monkeypatch.setenv(f"CASEMATE_LISTENERS__{position}__PORT", "0")
        monkeypatch.setenv(f"CASEMATE_LISTENERS__{position}__HOST", "127.0.0.1")
    with Broker(home) as broker:
        ports = [one.port for one in broker.addresses]
        assert 8_883 not in ports
        outcome = broker.reload()
        assert (outcome.changed, outcome.refused) == ((), ())
        assert [one.port for one in broker.addresses] == ports
        monkeypatch.setenv("CASEMATE_SHARD", "1")
        (refusal,) = broker.reload().refused
        assert "CASEMATE_SHARD: no such option" in refusal


def test_the_example_of_the_guide_is_admitted() -> None:
    guide = (ROOT / "docs/guides/configuration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    assert len(config.Configuration.model_validate(tomllib.loads(example)).listeners) == 4
    for name, value in re.findall(r"^\| `(CASEMATE_\w+)=(\S+)`", guide, re.MULTILINE):
        laid, named = variables.overlay(tomllib.loads(example), {name: value})
        assert list(named.values()) == [name]
        assert laid


RUNNING = (
    Listening("tls", "tls", "127.0.0.1", 8883, "optional"),
    Listening("wss", "wss", "127.0.0.1", 8084, "optional", "/mqtt"),
    Listening("unix", "unix", "", 0, "none", "/h/s"),
)
SAME = TLS + (
    '[[listeners]]\nkind = "wss"\nport = 8084\n[[listeners]]\nkind = "unix"\nsocket = "s"\n'
)


@pytest.mark.parametrize(
    ("text", "status", "found"),
    [
        (SAME, {}, []),
        (SAME.replace("8084", "0"), {}, []),
        (SAME.replace("8084", "8085"), {}, ["listener wss is wss on"]),
        (SAME.replace('"s"', '"t"'), {}, ["listener unix is unix on /h/s, and configured"]),
        (SAME.replace("8084", '8084\npath = "/x"'), {}, ["listener wss is wss on"]),
        (SAME.replace("8084", '8084\nname = "web"'), {}, ["listener web is", "listener wss lis"]),
        (SAME.replace("8883", f'8883\ninsecure_tls12 = "{REASON}"'), {}, ["configured, and not"]),
        (SAME, {"weakenings": ("tls: TLS 1.2 (x)",)}, ["in force, and not configured: tls: TLS"]),
        (SAME, {"reload": Reload(1, 1, (), ("shards",), ())}, ["shards has changed"]),
        (SAME, {"store": StoreStatus("memory")}, ['durability is "memory", and configured as "d']),
    ],
)
def test_each_difference_is_said_and_nothing_else(
    text: str, status: Mapping[str, Any], found: list[str]
) -> None:
    values = {"listeners": RUNNING, "counters": {}, "problems": (), "weakenings": ()}
    values |= {"store": StoreStatus("disk"), **status}
    wanted = config.Configuration.model_validate(tomllib.loads(text)).in_home(Path("/h"))
    running = Status("1", 1, 1, 1, **values)
    said = [*drift(wanted, running), *unconfigured(wanted, running)]
    assert len(said) == len(found)
    for words, beginning in zip(said, found, strict=True):
        assert words.startswith(beginning)


def test_the_committed_schema_is_the_one_that_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert execute(["config", "schema"]) == 0
    committed = (ROOT / "docs" / FILE_NAME).read_text(encoding="utf-8")
    assert capsys.readouterr().out == committed, f"run: casemate config schema > docs/{FILE_NAME}"


def test_the_default_file_names_the_schema_before_anything_else() -> None:
    assert config.default_text().splitlines()[0] == f"#:schema ./{FILE_NAME}"


SCHEMA = json.loads(config.schema_text())


def faults(value: object, schema: Mapping[str, Any] = SCHEMA) -> list[str]:
    """Checks a value by the words of JSON Schema that ours uses; an unknown word fails."""
    known = {"$schema", "$defs", "$ref", "title", "description", "default", "format", "type"}
    known |= {"additionalProperties", "properties", "required", "items", "enum", "const"}
    known |= {"minimum", "maximum", "minLength", "maxLength", "maxItems", "minItems"}
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if type(value) is not types[schema["type"]]:
        return [f"{value!r} is no {schema['type']}"]
    found = []
    if isinstance(value, dict):
        found += [f"{key} is missing" for key in schema.get("required", []) if key not in value]
        for key, one in value.items():
            inner = schema["properties"].get(key)
            found += [f"{key} is unknown"] if inner is None else faults(one, inner)
    elif isinstance(value, list):
        found += [fault for one in value for fault in faults(one, schema["items"])]
    elif isinstance(value, int):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            found.append(f"{value} is out of bounds")
    elif "enum" in schema and value not in schema["enum"]:
        found.append(f"{value} is not to be chosen")
    elif len(str(value)) < schema.get("minLength", 0):
        found.append(f"{value} is too short")
    return found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (config.default_text(), None),
        (SAME, None),
        (SAME.replace("8884", "8883"), None),
        ("shards = 1\n", "listeners is missing"),
        (TLS.replace("kind", "kin"), "kin is unknown"),
        (TLS.replace('"tls"', '"tsl"'), "not to be chosen"),
        (TLS.replace("8883", "65536"), "out of bounds"),
        (TLS.replace("8883", "true"), "no integer"),
        (TLS + 'insecure_tls12 = "because"\n', "too short"),
        (TLS + "[limits]\nreceive_max = 0\n", "out of bounds"),
        (TLS + "[limit]\n", "limit is unknown"),
    ],
)
def test_an_editor_with_the_schema_finds_what_the_check_finds(text: str, fault: str | None) -> None:
    found = faults(tomllib.loads(text))
    assert found == [] if fault is None else any(fault in one for one in found)


def test_every_option_is_explained_in_the_schema() -> None:
    for table in (SCHEMA, *SCHEMA["$defs"].values()):
        assert table["additionalProperties"] is False
        for name, described in table["properties"].items():
            assert described.get("description") or "$ref" in described, name
