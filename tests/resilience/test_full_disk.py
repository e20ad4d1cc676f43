"""A full disk under a real broker: it lives, promises nothing, says so, and goes on by itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from casemate.broker import StoreStatus, read_status
from casemate.client import Client
from casemate.errors import Refused
from casemate.home import Home
from tests.resilience.trail import PATIENCE_S, House
from tests.unit.python.commands import Running, casemate, running
from tests.unit.python.test_reload import free_port

SIZE_MIB = 64
PUBLISHERS = {"finder": 5, "fifth": 5, "third": 4}
PAYLOAD = b"x" * 262_144
"""More than a young file of the log has ahead of it: a small message may fit there."""

_QUOTA_EXCEEDED = 0x97


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0700", "casemate", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        pytest.skip(f"a small file system cannot be mounted: {error}")
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], timeout=30, check=True)


def fill(disk: Path) -> Path:
    """Takes all the room that there is."""
    filler = disk / "filler"
    for size in (1_048_576, 4_096, 1):
        with filler.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(size))
    assert os.statvfs(disk).f_bavail == 0
    return filler


async def test_a_full_disk_is_survived(tmp_path: Path, disk: Path) -> None:
    names = ["away", "finder", "fifth", "third", "echo"]
    house = House.build(tmp_path, free_port(), names, "[store]", f'folder = "{disk / "kept"}"')
    with house.served() as broker:
        await asyncio.to_thread(broker.until, "listening")
        async with house.ours("away", 5) as away:
            await away.subscribe("load/#", qos=1)
        promised = await fill_and_mend(house, disk, broker)
        async with house.ours("away", 5) as away:
            assert away.session_present
            await require_all(away, promised)
        assert broker.stop() == 0


async def fill_and_mend(house: House, disk: Path, broker: Running) -> set[bytes]:
    """Fills the disk under three publishers, makes room again; gives what was acknowledged."""
    clients = [house.ours(name, version) for name, version in PUBLISHERS.items()]
    async with clients[0] as finder, clients[1] as fifth, clients[2] as third:
        await publish(fifth, b"1")
        filler = fill(disk)
        # Its promise fails, so that its connection ends: it keeps the message and comes again.
        first = asyncio.create_task(publish(finder, b"2"))
        await asyncio.to_thread(broker.until, "ERROR store-full")
        with pytest.raises(Refused) as refused:
            await publish(fifth, b"never")
        assert refused.value.reason_code == _QUOTA_EXCEEDED
        # Before 5.0 there is no such answer, so that this connection ends too.
        unanswered = asyncio.create_task(publish(third, b"3"))
        await see_life(house)
        await asyncio.to_thread(see_alarm, house)
        assert not first.done()
        assert not unanswered.done()
        filler.unlink()
        await asyncio.to_thread(broker.until, "WARNING store-recovered")
        async with asyncio.timeout(PATIENCE_S):
            await first
            await unanswered
            await publish(fifth, b"4")
    assert await asyncio.to_thread(status_now, house) == StoreStatus(
        durability="disk", folder=str(disk / "kept"), failures=1
    )
    return {b"1", b"2", b"3", b"4"}


def see_alarm(house: House) -> None:
    """Sees that status and doctor tell of the full disk."""
    store = status_now(house)
    assert store.is_full
    assert "commit cannot be written" in store.failing or "segment" in store.failing
    said = casemate("status", "--home", house.home)
    assert "failing    the disk is full" in said.stdout
    said = casemate("doctor", "--home", house.home)
    assert said.returncode == 2
    assert "[store-failing]" in said.stdout


def status_now(house: House) -> StoreStatus:
    """Gives the store's part of the status, which a reload has written anew."""
    assert casemate("reload", "--home", house.home).returncode == 0
    store = read_status(house.home).store
    return replace(store, read_ms=0, commits_read=0, bytes_read=0)


async def publish(client: Client, mark: bytes) -> None:
    await client.publish("load/a", mark.ljust(8) + PAYLOAD, qos=1)


async def see_life(house: House) -> None:
    """Sees that all else goes on: what nobody has to keep is delivered."""
    files = Home.open(house.home).local_identity("echo")
    async with Client(
        "127.0.0.1",
        house.port,
        ca_file=files.ca,
        cert_file=files.certificate,
        key_file=files.key,
    ) as client:
        await client.subscribe("echo/#", qos=0)
        await client.publish("echo/1", b"here")
        async with asyncio.timeout(PATIENCE_S):
            assert (await anext(aiter(client.messages))).payload == b"here"


async def require_all(away: Client, promised: set[bytes]) -> None:
    """Sees that what was acknowledged is there, and what was refused is not."""
    found: set[bytes] = set()
    async with asyncio.timeout(PATIENCE_S):
        while not promised <= found:
            found.add((await anext(aiter(away.messages))).payload[:8].strip())
    assert found == promised


async def test_a_home_on_the_full_disk_still_says_so(disk: Path) -> None:
    """The status is on the same disk, which takes no new file any more."""
    house = House.build(disk, free_port(), ["away", "finder"])
    with house.served() as broker:
        await asyncio.to_thread(broker.until, "listening")
        async with house.ours("away", 5) as away:
            await away.subscribe("load/#", qos=1)
        async with house.ours("finder", 5) as finder:
            filler = fill(disk)
            first = asyncio.create_task(publish(finder, b"2"))
            await asyncio.to_thread(broker.until, "ERROR store-full")
            with running("status", "--watch", "--json", "--home", house.home) as watching:
                await asyncio.to_thread(watching.until, '"is_full": true')
                filler.unlink()
                await asyncio.to_thread(watching.until, '"is_full": false')
            async with asyncio.timeout(PATIENCE_S):
                await first
