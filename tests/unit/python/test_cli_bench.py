"""`casemate bench`: any broker, over every transport, bounded, and never elsewhere by mistake."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import trustme

from casemate import Broker, native
from casemate.cli.app import execute
from casemate.cli.bench import HARM
from casemate.cli.workload import Shape
from casemate.home import Home
from casemate.lab import Lab, LabOptions
from tests.unit.python.commands import PATIENCE_S, ROOT, running

COUNT = "400"


@pytest.fixture(scope="module")
def ready() -> Iterator[dict[str, Any]]:
    with Lab(LabOptions()) as lab:
        yield lab.ready()


def reach(ready: dict[str, Any], transport: str, user: str = "all") -> list[str]:
    """Gives the options that reach the lab over a transport."""
    proof = ["-u", user, "-P", ready["users"][user]]
    trust = ["--cafile", ready["ca_file"]]
    port, path = ready.get(f"{transport.replace('tcp', '')}_port", ready["port"]), ready["ws_path"]
    match transport:
        case "tcp":
            return [*proof, "-h", "127.0.0.1", "-p", str(port), "--insecure-plaintext"]
        case "tls":
            return [*proof, "-h", "127.0.0.1", "-p", str(port), *trust]
        case "ws":
            return [*proof, "-L", f"ws://127.0.0.1:{port}{path}"]
        case "wss":
            return [*proof, "-L", f"wss://127.0.0.1:{port}{path}", *trust]
    own = ["--cert", ready["client_cert"], "--key", ready["client_key"]]
    return ["-h", "127.0.0.1", "-p", str(port), *trust, *own]


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Runs a bench: its exit code, and its report or its error."""
    code = execute(["bench", *words, "--json"])
    said = capsys.readouterr()
    # A run that harmed messages still has a report.
    values: dict[str, Any] = json.loads(said.out or said.err.splitlines()[-1])
    return code, values


def unharmed(values: dict[str, Any]) -> bool:
    return not any(values["harm"].values()) and not values["unsent"]


@pytest.mark.parametrize("transport", ["tcp", "tls", "mtls", "ws", "wss"])
@pytest.mark.parametrize(("version", "qos"), [("31", 0), ("311", 1), ("5", 2)])
def test_every_transport_version_and_qos_delivers_everything(
    ready: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    transport: str,
    version: str,
    qos: int,
) -> None:
    words = ["pairs", "--publishers", "3", "--count", COUNT, "-V", version, "-q", str(qos)]
    code, values = ran(capsys, *words, *reach(ready, transport))
    assert code == 0, values
    assert unharmed(values)
    assert values["published"] == values["delivered"] == values["expected"] == int(COUNT)
    assert values["transport"] == ("tls" if transport == "mtls" else transport)


@pytest.mark.parametrize(
    ("words", "clients", "expected"),
    [
        (["fan-in", "--publishers", "5"], 6, 400),
        (["fan-in", "--publishers", "5", "--subscribers", "2"], 7, 400),
        (["fan-out", "--subscribers", "7"], 8, 2_800),
        (["fan-out", "--publishers", "2", "--subscribers", "3"], 5, 1_200),
        (["pairs", "--subscribers", "4"], 8, 400),
        (["shared", "--publishers", "3", "--subscribers", "2"], 5, 400),
    ],
)
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_each_shape_reaches_whom_it_should(
    ready: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    clients: int,
    expected: int,
    qos: str,
) -> None:
    code, values = ran(capsys, *words, "--count", COUNT, "-q", qos, *reach(ready, "tcp"))
    assert (code, values["clients"], values["expected"]) == (0, clients, expected)
    assert unharmed(values)


def test_a_url_says_where_and_which_topic(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"mqtt://some:{ready['users']['some']}@127.0.0.1:{ready['port']}/users/some/load"
    words = ["pairs", url, "--publishers", "1", "--count", COUNT, "--quiet"]
    code, values = ran(capsys, *words)
    assert (code, values["delivered"], values["transport"]) == (0, 400, "tcp")
    code, values = ran(capsys, *words, "-t", "users/some/other")
    assert code == 2
    assert "both name a topic" in values["error"]["message"]


def test_large_messages_aliases_and_properties_arrive_as_they_were_sent(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pairs", "--publishers", "2", "--count", "20", "--payload", "1000000"]
    for transport in ("tcp", "wss"):
        options = ["--alias", "--properties", "-q", "1", *reach(ready, transport)]
        code, values = ran(capsys, *words, *options)
        assert (code, values["delivered"]) == (0, 20)
        assert unharmed(values)


@pytest.mark.parametrize("shape", ["fan-in", "fan-out", "pairs", "shared"])
def test_many_topics_reach_whom_they_should_by_one_filter_or_by_as_many(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    # 300 subscriptions need more than one SUBSCRIBE.
    sizes = ["--publishers", "2"] if shape == "pairs" else ["--publishers", "2", "--subscribers=2"]
    for more in ([], ["--single-filters"]):
        words = [shape, *sizes, "--topics", "150", "--count", COUNT, "-q", "1", *more]
        code, values = ran(capsys, *words, *reach(ready, "tcp"))
        assert code == 0
        assert values["expected"] == 400 * (2 if shape == "fan-out" else 1)
        assert unharmed(values)


@pytest.mark.parametrize("version", ["31", "311", "5"])
def test_sessions_that_last_are_discarded_unless_they_are_left(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str], version: str
) -> None:
    named = ["-i", f"lasts{version}", "-V", version, "-q", "1", *reach(ready, "tcp")]
    lasting = ["pairs", "--publishers", "2", "--count", COUNT, "--lasting", "600", *named]
    # The second run would meet the sessions of the first.
    for _ in range(2):
        code, values = ran(capsys, *lasting)
        assert (code, values["delivered"], values["lasting_s"]) == (0, int(COUNT), 600)
        assert unharmed(values)
    code, values = ran(capsys, *lasting, "--leave-sessions")
    assert code == 0
    assert unharmed(values)
    code, values = ran(capsys, *lasting)
    if version == "311":
        # What is left is nobody's to discard.
        assert code == 1
        assert "has kept a session of this client id" in values["error"]["message"]
    else:
        # 3.1 cannot say it, and 5.0 begins anew by itself.
        assert code == 0


def test_what_lasts_and_what_is_left_behind_must_make_sense(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["connects", "--lasting", "60"], "no subscribers whose sessions could last"),
        (["pairs", "--leave-sessions"], "--leave-sessions belongs to --lasting"),
        (["pairs", "--lasting", "0"], "--lasting"),
    ):
        assert execute(["bench", *words, *reach(ready, "tcp")]) == 2
        assert said in capsys.readouterr().err


def test_a_rate_is_kept_and_its_latency_reported(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pairs", "--publishers", "2", "--rate", "500", "--seconds", "0.6", "--warm-up", "0.2"]
    code, values = ran(capsys, *words, *reach(ready, "tcp"))
    assert code == 0
    # The schedule, and not how fast this machine is, says how many there are.
    assert values["expected"] == 400
    assert values["latency_us"]["count"] == values["lateness_us"]["count"] == 300
    assert values["latency_us"]["least"] <= values["latency_us"]["p50"]
    assert values["latency_us"]["p999"] <= values["latency_us"]["most"]


def test_a_storm_connects_everybody_over_tls_in_full_and_resumed(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--tls-resume"], ["--rate", "200"]):
        words = ["connects", "--connections", "40", "--at-once", "4", "--seconds", "60", *more]
        code, values = ran(capsys, *words, *reach(ready, "tls"))
        assert (code, values["connected"], values["harm"]["failed"]) == (0, 40, 0)
        assert values["connecting_us"]["count"] == 40


def test_idle_connections_stay_and_the_broker_is_weighed(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["idle", "--connections", "50", "--seconds", "0.2", "--warm-up", "0"]
    code, values = ran(capsys, *words, "--broker-pid", str(os.getpid()), *reach(ready, "tcp"))
    assert (code, values["connected"]) == (0, 50)
    before, after = values["broker"]["memory_bytes"]
    assert before > 0
    assert after > 0


def test_what_both_sides_cost_is_said_where_the_broker_is_known(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pairs", "--publishers", "2", "--count", COUNT, *reach(ready, "tcp")]
    _, values = ran(capsys, *words)
    assert values["broker"] is None
    assert values["generator"]["cpu_us_each"] > 0
    _, values = ran(capsys, *words, "--broker-pid", str(os.getpid()))
    assert values["broker"]["cpu_us_each"] > 0


def test_a_report_says_when_it_measured_and_a_storm_that_sends_nothing_too(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seconds", "0.2", "--warm-up", "0", *reach(ready, "tcp")]
    for shape in (("pairs", "--publishers", "1"), ("idle", "--connections", "1")):
        before_s = time.time()
        _, values = ran(capsys, *shape, *words)
        assert before_s <= values["began_unix_s"] < values["ended_unix_s"] <= time.time()


def test_people_read_the_same_in_words(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pairs", "--publishers", "1", "--count", COUNT, *reach(ready, "tcp")]
    assert execute(["bench", *words]) == 0
    said = capsys.readouterr()
    assert "published   400" in said.out
    assert "harm        none of 400 deliveries" in said.out
    assert said.err == ""


def test_a_subscription_that_the_policy_forbids_ends_the_run_with_the_brokers_reason(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pairs", "--publishers", "1", "--count", COUNT]
    code, values = ran(capsys, *words, *reach(ready, "tcp", "some"))
    assert code == 1
    assert "refused a subscription: not authorized" in values["error"]["message"].lower()
    # Below its own name it may.
    code, values = ran(capsys, *words, "-t", "users/some/load", *reach(ready, "tcp", "some"))
    assert (code, values["delivered"]) == (0, 400)


def test_messages_that_the_policy_forbids_are_counted_as_refused(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    # It may look at devices and not speak for them.
    words = ["pairs", "--publishers", "1", "--count", "50", "-q", "1", "-t", "devices/x"]
    code, values = ran(capsys, *words, *reach(ready, "tcp", "some"))
    assert (code, values["harm"]["refused"], values["harm"]["lost"]) == (1, 50, 0)


def test_wrong_proof_and_wrong_trust_are_refused_in_one_line(
    ready: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good = reach(ready, "tls")
    password = good.index("-P") + 1
    wrong = [*good[:password], "not-the-password", *good[password + 1 :]]
    code, values = ran(capsys, "pairs", *wrong)
    assert code == 1
    assert "refused the connection" in values["error"]["message"]
    assert "not-the-password" not in json.dumps(values)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    code, values = ran(capsys, "pairs", *good[:-1], str(tmp_path / "other.pem"))
    assert code == 1
    assert "certificate" in values["error"]["message"].lower()
    (tmp_path / "empty.pem").write_text("")
    code, values = ran(capsys, "pairs", *good[:-1], str(tmp_path / "empty.pem"))
    assert code == 1
    assert "cannot be used" in values["error"]["message"]


def test_nobody_there_is_said_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
        words = ["-h", "127.0.0.1", "-p", port, "--insecure-plaintext"]
        code, values = ran(capsys, "pairs", *words)
    assert code == 1
    assert "refused" in values["error"]["message"]
    code, values = ran(capsys, "pairs", "-h", "no.such.host.invalid", "--insecure-plaintext")
    assert code == 1
    assert "not known" in values["error"]["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["pairs", "--publishers", "2", "--subscribers", "3"],
        ["pairs", "--connections", "3"],
        ["connects", "--publishers", "3"],
        ["pairs", "--payload", "15"],
        ["pairs", "--ws"],
        ["pairs", "one word"],
        ["pairs", "-x", "60"],
        ["pairs", "--tls-version", "tlsv1.2"],
        ["pairs", "--alias", "-V", "311"],
        ["pairs", "-t", "a/#"],
        ["fan-in", "--publishers", "1", "--subscribers", "2"],
        ["pairs", "--will-topic", "a"],
        ["pairs", "--tls-resume"],
        ["pairs", "--broker-pid", "4194305"],
        ["circle"],
        ["idle", "--connections", "100000000"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing listens on port 9: a refusal after a connection would be another one.
    code, values = ran(capsys, *words, "-h", "127.0.0.1", "-p", "9", "--insecure-plaintext")
    assert (code, values["error"]["code"]) == (2, "usage")


def test_a_broker_elsewhere_is_not_loaded_without_a_yes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was about to load a stranger")

    monkeypatch.setattr(native, "run_load", never)
    monkeypatch.setattr(socket, "create_connection", never)
    # An address for documentation, where nobody is (RFC 5737).
    words = ["pairs", "-h", "192.0.2.1", "--insecure-plaintext"]
    code, values = ran(capsys, *words)
    assert code == 2
    assert "--yes" in values["error"]["message"]
    code, values = ran(capsys, *words, "--yes", "--broker-pid", str(os.getpid()))
    assert code == 2
    assert "--broker-pid" in values["error"]["message"]


def test_who_sits_at_a_terminal_is_asked_and_may_say_no(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: (_ for _ in ()).throw(typer_abort()))
    code, values = ran(capsys, "pairs", "-h", "192.0.2.1", "--insecure-plaintext")
    assert (code, values["error"]["code"]) == (1, "aborted")


def typer_abort() -> BaseException:
    import typer

    return typer.Abort()


def test_ctrl_c_ends_a_run_with_its_report() -> None:
    words = ["bench", "pairs", "--publishers", "2", "--seconds", "600", "--json"]
    with (
        Lab(LabOptions()) as lab,
        running(*words, *reach(lab.ready(), "tcp")) as run,
    ):
        # It says nothing before its report, so that the broker says when messages flow.
        deadline = time.monotonic() + PATIENCE_S
        while not lab.broker.status().counters["publishes_sent"]:
            assert time.monotonic() < deadline
        assert run.stop(signal.SIGINT) == 130
        values = json.loads(run.text.splitlines()[-1])
    assert values["ended_early"] is True
    assert not any(values["harm"].values())


def test_what_the_watcher_raises_ends_the_run_and_is_raised(ready: dict[str, Any]) -> None:
    def watch(moment: str, _: native.LoadStanding) -> bool:
        raise LookupError(moment)

    target = native.LoadTarget(
        "127.0.0.1",
        ready["port"],
        username="all",
        password=ready["users"]["all"].encode(),
    )
    with pytest.raises(LookupError, match=r"warming up|begins|connecting"):
        native.run_load(target, watch, shape="pairs", measured_s=60.0)
    with pytest.raises(ValueError, match="shape"):
        native.run_load(target, watch, shape="circle")
    assert ready["users"]["all"] not in repr(target)


GUIDE = (ROOT / "docs" / "guides" / "bench.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\$ casemate (bench .*?)(?:\s+#.*)?$", GUIDE, re.MULTILINE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("bench") / "home"
    Home.init(home)
    (home / "casemate.toml").write_text(
        '[[listeners]]\nkind = "tls"\nhost = "127.0.0.1"\nport = 0\n', encoding="utf-8"
    )
    with Broker(home):
        yield home


@pytest.mark.parametrize("line", LINES)
def test_each_line_of_the_guide_runs(
    line: str, served: Path, ready: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)[1:]
    if "--as" in words:
        words += ["--home", str(served)]
    else:
        # The guide's broker takes anybody in plaintext, as none of ours does.
        words += reach(ready, "tcp")
    # The last one counts: fewer of everything, as the line is what is tested.
    words += ["--connections", "20"] if "connects" in words else ["--count", COUNT]
    words += ["--seconds", "1", "--warm-up", "0"]
    code, values = ran(capsys, *words)
    assert code == 0, values
    assert values["delivered"] or values["connected"]


def test_the_guide_has_lines_and_names_each_shape_and_each_harm() -> None:
    assert len(LINES) >= 5
    assert set(re.findall(r"^\| `([\w-]+)` \|", GUIDE, re.MULTILINE)) == set(get_args(Shape))
    told = re.findall(r"^\| ([a-z ]+) \| (?:it|the|QoS|a) ", GUIDE, re.MULTILINE)
    assert [words.replace(" ", "_") for words in told] == list(HARM)
