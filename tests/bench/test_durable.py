"""Brokers that keep messages: each starts, keeps a run's messages, and stands beside its disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import disk, durable, keepers, page, results
from bench.cases import Case
from bench.measure import Settings, run, suits
from bench.peers import FLOOR, PEERS, Peer
from casemate import config

pytestmark = pytest.mark.timeout(300)

# A run of so many messages ends with the last of them, however slow its broker is.
TINY = Settings(rounds=1, seconds=60.0, warm_up_s=0.0)
FEW = ("pairs", "--publishers", "2", "--count", "100", "--lasting", "60")


def quiet(_: str) -> None:
    """Hears each line and says nothing."""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Lets the disk of a test be whatever holds its own folder."""
    monkeypatch.setattr(disk, "_MEMORY", ())
    monkeypatch.setattr(disk, "PLACE", tmp_path / "data")
    return tmp_path / "data"


def present() -> list[Peer]:
    """Keepers that need nothing which others wrote and a test would have to build."""
    return [
        peer
        for peer in keepers.PEERS
        if not peer.name.startswith("nats")
        and (shutil.which("mosquitto") or not peer.name.startswith("mosquitto"))
    ]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("peer", present(), ids=lambda peer: peer.name)
def test_each_keeper_delivers_all_to_sessions_that_last(peer: Peer, qos: int) -> None:
    with peer.serving() as reach:
        report = run(Case("durable", "", FEW, qos), reach.words, reach.pid, TINY)
    assert report["delivered"] == report["expected"] == 100
    assert not any(report["harm"].values())
    assert report["lasting_s"] == 60


@pytest.mark.parametrize("peer", [keepers.DISK, keepers.SYSTEM, keepers.MEMORY])
def test_ours_has_the_durability_of_its_name_and_leaves_no_session(
    peer: keepers.OurKeeper,
) -> None:
    with peer.built() as house:
        assert config.load(house.home).store.durability == peer.durability
        for _ in range(2):
            # The second run would meet the sessions of the first.
            with house.served() as reach:
                report = run(Case("durable", "", FEW, 1), reach.words, reach.pid, TINY)
            assert not any(report["harm"].values())


def test_the_table_has_the_disk_beside_each_figure(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path
) -> None:
    few = (Case("durable", "a pair, QoS 1", FEW, 1),)
    monkeypatch.setattr(durable, "CASES", few)
    study = durable.measure([FLOOR, keepers.DISK], TINY, quiet)
    assert study.notes == []
    assert list(study.rows) == ["casemate, durability disk, a pair, QoS 1"]
    for columns in study.rows.values():
        assert set(columns) == set(durable.COLUMNS)
        assert all(len(values) == 1 and values[0] > 0 for values in columns.values())
        assert columns[durable.SYNC_P50][0] <= columns[durable.SYNC_P99][0]
    assert " on " in study.about["disk"]
    assert not place.exists()
    about = {**program.machine.describe(), "load": 0.5, "seconds": 0.1, **study.about}
    results.keep_table("durable", about, 1, study.rows, tmp_path)
    before = "<!-- measured: durable -->\n<!-- end -->"
    written = page.filled(before, results.read(tmp_path))
    assert f"data on {study.about['disk']}" in written
    # Of cases that were not measured there is no figure.
    assert "| delivered a second | – | ≥ 400,000 | – |" in written
    for peer in keepers.PEERS:
        assert f"| {peer.title} | {keepers.PROMISES[peer.name]} |" in written


def test_keepers_are_measured_by_what_they_keep_only() -> None:
    assert set(keepers.PROMISES) == {peer.name for peer in keepers.PEERS}
    names = [peer.name for peer in (*PEERS, *keepers.PEERS)]
    assert len(names) == len(set(names))
    case = Case("messages", "", FEW, 0)
    assert not any(suits(peer, case) for peer in keepers.PEERS)
    assert all(suits(peer, one) for peer in keepers.PEERS for one in durable.CASES)


def test_a_disk_that_is_memory_is_no_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kind = disk.file_system(tmp_path).partition(" ")[0]
    monkeypatch.setattr(disk, "_MEMORY", (kind,))
    with pytest.raises(RuntimeError, match=rf"is in memory \({kind}\)"):
        disk.file_system(tmp_path)


def test_syncs_are_counted_and_leave_no_file(tmp_path: Path) -> None:
    taken = disk.syncs_us(20, tmp_path)
    assert len(taken) == 20
    assert min(taken) > 0
    assert list(tmp_path.iterdir()) == []
    assert disk.quantiles_us([1.0] * 98 + [2.0, 3.0]) == (1.0, 2.0)


def test_the_goals_are_held_against_medians_of_one_run(tmp_path: Path) -> None:
    def row(rate: float, cost_us: float) -> dict[str, list[float]]:
        values = {name: [1.0] for name in durable.COLUMNS}
        return {**values, durable.RATE: [rate], durable.COST: [cost_us]}

    found = {}
    for case in durable.CASES:
        found[f"{keepers.DISK.title}, {case.name}"] = row(420_000.0, 0.9)
        found[f"{keepers.MEMORY.title}, {case.name}"] = row(800_000.0, 0.6)
        found[f"{keepers.MOSQUITTO.title}, {case.name}"] = row(40_000.0, 9.0)
    about = {**program.machine.describe(), "load": 0.5, "seconds": 0.1, "disk": "ext4 on it"}
    results.keep_table("durable", about, 1, found, tmp_path)
    written = page.filled("<!-- measured: durable -->\n<!-- end -->", results.read(tmp_path))
    assert "| delivered a second | 420,000 | ≥ 400,000 | 420,000 |" in written
    assert "| against mosquitto in memory | 10 × | ≥ 10 × | 10 × |" in written
    assert "| CPU against durability memory | 1.50 × | ≤ 1.5 × | 1.50 × |" in written
