"""The comparison of brokers: it measures, keeps, draws and writes; how fast is not tested here."""

from __future__ import annotations

import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import border, clients, machine, page, peers, picture, results, startup
from bench.cases import Case, cases
from bench.measure import Figures, Report, Settings, measure, run, spread, suits
from bench.peers import FLOOR, OURS, PATTERNED, PEERS, RULED, SHARDED, Missing, Peer, Reach
from casemate import policy

# The first test builds the floor where nobody has.
pytestmark = pytest.mark.timeout(900)

TINY = Settings(rounds=1, seconds=0.1, warm_up_s=0.0)
# A run ends with the last of the messages of its case, however long a slow machine takes for them.
WHOLE = replace(TINY, seconds=60.0)
PAIRS = Case("messages", "50:50 QoS 1", ("pairs", "--publishers", "2", "--count", "200"), 1)


def quiet(_: str) -> None:
    """Hears each line and says nothing."""


@pytest.fixture(scope="module")
def built() -> list[Peer]:
    """Those of the tree, and mosquitto where it is installed: no test builds what others wrote."""
    found = [FLOOR, OURS]
    if shutil.which("mosquitto"):
        found += [peer for peer in PEERS if peer.name == "mosquitto"]
    for peer in found:
        assert peer.get()
    return found


def test_each_broker_of_the_tree_is_measured_and_harms_nothing(built: list[Peer]) -> None:
    lines: list[str] = []
    found = measure(built, PAIRS, WHOLE, lines.append)
    assert [line.split(", ")[2].split(":")[0] for line in lines] == [peer.name for peer in built]
    for name, figures in found.items():
        assert (figures.harm, figures.faults) == ({}, []), name
        assert figures.cost[0] > 0
        assert figures.rate[0] > 0
        assert figures.generator_cost[0] > 0


@pytest.mark.parametrize("transport", OURS.transports)
def test_ours_is_measured_over_each_transport_with_password_and_policy(transport: str) -> None:
    with OURS.serving(transport) as reach:
        assert "--cert" in reach.words if transport == "mtls" else "-P" in reach.words
        report = run(PAIRS, reach.words, reach.pid, WHOLE)
        assert report["transport"] == transport.removeprefix("m")
        assert report["delivered"] == 200
        if transport == "mtls":
            # Its device may do everything.
            return
        # What its rule does not cover is refused, so that the rule is at work.
        elsewhere = [*reach.words, "-t", "users/all/bench"]
        with pytest.raises(RuntimeError, match="refused a subscription"):
            run(PAIRS, elsewhere, reach.pid, TINY)


@pytest.mark.parametrize("peer", RULED, ids=lambda peer: peer.name)
def test_a_role_of_many_rules_is_in_force_with_the_one_that_applies(peer: Peer) -> None:
    rules = int(peer.name.rpartition("-")[2])
    role = policy.Policy.parse(peers.policy_of(rules)).roles["some"]
    # Each stands in a line of its own; one for both sides counts twice inside.
    assert len({rule.where for rule in role}) == rules
    assert all("%" in rule.filter for rule in role)
    with peer.serving() as reach:
        assert run(PAIRS, reach.words, reach.pid, WHOLE)["delivered"] == 200
        # Of the role that a lab would have without these, and of nobody.
        for topic in ("public/bench", "users/all/bench"):
            with pytest.raises(RuntimeError, match="refused a subscription"):
                run(PAIRS, [*reach.words, "-t", topic], reach.pid, TINY)


@pytest.mark.skipif(not shutil.which("mosquitto"), reason="mosquitto is not installed")
@pytest.mark.parametrize("peer", PATTERNED, ids=lambda peer: peer.name)
def test_many_patterns_of_mosquitto_are_in_force_with_the_one_that_applies(peer: Peer) -> None:
    with peer.serving() as reach:
        assert run(PAIRS, reach.words, reach.pid, WHOLE)["delivered"] == 200
        # It says yes to such a subscription, and drops what is published there.
        elsewhere = run(PAIRS, [*reach.words, "-t", "users/all/bench"], reach.pid, TINY)
        assert (elsewhere["delivered"], elsewhere["harm"]["lost"] > 0) == (0, True)
        wrong = [word.replace(peers.PASSWORD, "wrong") for word in reach.words]
        with pytest.raises(RuntimeError, match="refused the connection"):
            run(PAIRS, wrong, reach.pid, TINY)


def test_the_floor_is_refused_what_it_cannot_do() -> None:
    beyond = [case for case in cases() if not case.peers and not suits(FLOOR, case)]
    assert {case.qos for case in beyond} == {0, 1, 2}
    able = ("tcp", "tls")
    assert all(c.qos == 2 or c.version == 5 or c.transport not in able for c in beyond)
    assert all(suits(OURS, case) for case in cases())
    ruled = [*RULED, *PATTERNED]
    assert all({c.suite for c in cases() if suits(peer, c)} == {"rules"} for peer in ruled)
    assert {case.suite for case in cases() if suits(SHARDED, case)} == {"shards"}


def test_a_broker_that_does_not_start_is_a_fault_with_its_own_words() -> None:
    def command(_: int, folder: Path) -> list[str]:
        return ["sh", "-c", "echo no such option >&2; exit 2"]

    broken = Peer("broken", "broken", lambda: "1", command)
    found = measure([broken], PAIRS, TINY, quiet)
    assert found["broken"].faults == ["it does not start: no such option"]
    assert found["broken"].summary()["cost"] is None


def test_a_broker_that_refuses_the_load_is_a_fault_with_the_generators_words() -> None:
    class Locked(Peer):
        @contextmanager
        def serving(self, transport: str = "tcp") -> Iterator[Reach]:
            with OURS.serving(transport) as reach:
                words = list(reach.words)
                words[words.index("-P") + 1] = "wrong"
                yield Reach(reach.pid, tuple(words))

    found = measure([Locked("locked", "locked", OURS.get, OURS.command)], PAIRS, TINY, quiet)
    assert "refused the connection" in found["locked"].faults[0]


def test_what_cannot_be_built_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for peer in PEERS:
        if peer.name in ("mosquitto", "mochi", "nats"):
            with pytest.raises(Missing, match="is not installed"):
                peer.get()


def test_a_missing_broker_is_named_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> str:
        raise Missing("nobody has it")

    lost = Peer("lost", "Lost Broker", gone, FLOOR.command)
    monkeypatch.setattr(peers, "PEERS", (lost,))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    program._measure(["wide"], ["lost"], TINY)
    written = page.filled("<!-- measured: wide -->\n<!-- end -->", results.read(tmp_path))
    assert "*Lost Broker is missing: nobody has it.*" in written


def report(cost: float | None, **more: object) -> Report:
    """A report of the generator, as far as it is read here."""
    return {
        "broker": {"cpu_us_each": cost, "core_used": 0.5, "memory_bytes": [1_000, 9_000]},
        "generator": {"cpu_us_each": 0.1},
        "delivered_per_s": 1_000.0,
        "connected_per_s": 10.0,
        "connected": 4,
        "setup_s": 2.0,
        "latency_us": None,
        "harm": {"lost": 0},
        "unsent": 0,
        **more,
    }


def test_a_slow_broker_is_measured_longer() -> None:
    longer = Settings(seconds=0.5, warm_up_s=0.2).stretched(5)
    assert (longer.rounds, longer.seconds, longer.warm_up_s) == (3, 2.5, 1.0)


def test_figures_are_medians_with_their_ranges() -> None:
    figures = Figures()
    for cost in (3.0, 1.0, 2.0):
        figures.add(PAIRS, report(cost))
    summary = figures.summary()
    assert summary["cost"] == {"median": 2.0, "least": 1.0, "most": 3.0}
    assert summary["runs"]["cost"] == [3.0, 1.0, 2.0]
    assert spread([]) is None


def test_a_run_without_deliveries_is_no_figure() -> None:
    figures = Figures()
    figures.add(PAIRS, report(None))
    assert figures.cost == []
    assert figures.faults == ["nothing was delivered in the measured time"]


def test_memory_is_divided_by_connections() -> None:
    figures = Figures()
    figures.add(Case("idle", "TCP", ("idle",), counts="memory"), report(None))
    assert figures.cost == [2_000.0]


def kept(tmp_path: Path) -> dict[str, results.Result]:
    """Results of two brokers in two cases; one of them loses messages in the second."""
    good, bad = Figures(), Figures()
    good.add(PAIRS, report(0.5))
    bad.add(PAIRS, report(12.0, harm={"lost": 7}, unsent=2))
    bad.load.append(1.5)
    known = {
        "floor": {"title": "floor", "version": "of this tree"},
        "casemate": {"title": "casemate", "version": "0.1.0"},
        "mosquitto": {"title": "mosquitto", "missing": "it is not there"},
    }
    names = ["50→1 QoS 0", "50:50 QoS 0"]
    done = [(Case("messages", name, ()), {"casemate": good, "floor": bad}) for name in names]
    machine_of_test = {**machine.describe(), "processor": "a processor"}
    results.keep("messages", machine_of_test, TINY, known, done, tmp_path)
    return results.read(tmp_path)


def test_the_page_shows_medians_harm_and_who_is_missing(tmp_path: Path) -> None:
    before = "Words.\n<!-- measured: messages -->\nold\n<!-- end -->\nMore words.\n"
    after = page.filled(before, kept(tmp_path))
    assert after.startswith("Words.\n<!-- measured: messages -->\n![")
    assert after.endswith("\n<!-- end -->\nMore words.\n")
    assert "old" not in after
    assert "| **casemate 0.1.0** | 0.50 | 0.50 |" in after
    assert "| floor | 12 † | 12 † |" in after
    assert "*† floor, 50→1 QoS 0: lost 7, unsent 2.*" in after
    assert "*mosquitto is missing: it is not there.*" in after
    assert "load average 1.5–1.5" in after


def test_a_block_that_was_not_measured_stays_as_it_is(tmp_path: Path) -> None:
    before = "<!-- measured: wide -->\nas it was\n<!-- end -->\n"
    assert page.filled(before, kept(tmp_path)) == before


def test_a_picture_is_drawn_and_well_formed(tmp_path: Path) -> None:
    ((suite, drawn),) = page.drawings(kept(tmp_path))
    assert suite == "messages"
    root = ET.fromstring(drawn)  # noqa: S314 - our own picture.
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    # One for each value, and one for each broker in the legend.
    assert len(circles) == 4 + 2
    hostile = picture.dots("<a>", "µ&s", {"<b>": {"c&d": 2.0, "none": 0.0}}, ["c&d", "none"])
    assert "<b>" not in hostile
    ET.fromstring(hostile)  # noqa: S314 - our own picture.
    assert picture.dots("empty", "µs", {}, [])


def test_a_table_without_brokers_is_kept_and_written(tmp_path: Path) -> None:
    found = {"casemate": {"µs": [1.0, 2.0, 9.0]}, "other": {"µs": []}}
    described = {**machine.describe(), "load": 0.5}
    results.keep_table("clients", described, 3, found, tmp_path)
    written = page.filled("<!-- measured: clients -->\n<!-- end -->", results.read(tmp_path))
    assert "| **casemate** | 2.00 (1.00–9.00) |\n| other | – |" in written
    assert "load average 0.5" in written


def test_the_border_and_the_starts_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "MESSAGES", 2 * border.BATCH)
    monkeypatch.setattr(border, "SINGLES", 10)
    for found in (border.measure(1, quiet), startup.measure(1, quiet)):
        for row, columns in found.items():
            for values in columns.values():
                assert len(values) == 1, row
                assert values[0] > 0, row


def test_each_client_library_is_measured_in_each_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("paho.mqtt", "aiomqtt", "gmqtt"):
        pytest.importorskip(library)
    monkeypatch.setenv("BENCH_MESSAGES", "40")
    found = clients.measure(1, quiet)
    assert set(found) == set(clients.LIBRARIES)
    assert all(one[0] > 0 for columns in found.values() for one in columns.values())


def test_each_suite_has_its_block_on_the_page_and_each_block_its_suite() -> None:
    text = "".join(one.read_text(encoding="utf-8") for one in page.PAGES)
    suites = {case.suite for case in cases()}
    tables = set(program.TABLES) | set(program.STUDIES)
    assert sorted(found[1] for found in page._BLOCK.findall(text)) == sorted(suites | tables)
    assert set(page.BLOCKS) == suites


def test_the_page_says_what_the_results_say() -> None:
    """Who measures again writes the pages again: `python -m bench --page`."""
    kept_results = results.read()
    for one in page.PAGES:
        text = one.read_text(encoding="utf-8")
        assert page.filled(text, kept_results) == text
    for suite, drawn in page.drawings(kept_results):
        assert (page.PICTURES / f"{suite}.svg").read_text(encoding="utf-8") == drawn


def test_names_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--suites", "mesages"], ["--peers", "mosquito"]):
        with pytest.raises(SystemExit) as ended:
            program.main(words)
        assert ended.value.code == 2
        assert "there is no" in capsys.readouterr().err


def test_each_command_of_the_page_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would measure is told instead; that it measures is tested above."""
    text = "".join(one.read_text(encoding="utf-8") for one in page.PAGES)
    lines = re.findall(r"^\$ make bench(?: ARGUMENTS=\"([^\"]*)\")?", text, re.MULTILINE)
    assert len(lines) >= 2
    told: list[tuple[list[str], list[str]]] = []
    monkeypatch.setattr(program, "_measure", lambda suites, names, _: told.append((suites, names)))
    monkeypatch.setattr(program, "TABLES", {})
    monkeypatch.setattr(page, "write", lambda _: None)
    for line in lines:
        assert program.main(shlex.split(line)) == 0
    assert len(told[0][0]) > len(told[1][0]) == 1
    assert told[1][1] == ["floor", "casemate", "mosquitto"]
    assert told[-1][0] == ["durable", "recovery"]
