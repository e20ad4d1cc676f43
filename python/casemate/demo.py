"""`make run`: a broker as a newcomer starts it, with this machine as its first device.

It makes a home in `.casemate/`, enrols this machine, publishes what it really measures (processor,
memory, disk, network) each second over TLS with the device's certificate, and shows it as another
identity receives it. Ctrl-C stops everything in order; the next run starts in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from casemate import config
from casemate.broker import Broker
from casemate.cli.posture import next_steps, print_posture, print_report
from casemate.cli.up import make_home
from casemate.client import Client
from casemate.errors import CasemateError
from casemate.home import Home

FOLDER = ".casemate"
VIEWER = "console-demo"
INTERVAL_S = 1.0

_DEVICE_CHARACTERS_MAX = 40


@dataclass(frozen=True, slots=True)
class Reading:
    """Holds one value that this machine measured.

    Attributes:
        name: Last levels of its topic.
        value: The number.
        unit: Its unit.
    """

    name: str
    value: float
    unit: str


class Meter:
    """Measures this machine; rates are since the last look."""

    def __init__(self) -> None:
        """Takes the first look, without which there is no rate."""
        psutil.cpu_percent()
        self._at = time.monotonic()
        self._network = psutil.net_io_counters()
        self._disk = psutil.disk_io_counters()

    def read(self) -> list[Reading]:
        """Gives what there is to say now; what a machine does not count is left out."""
        now = time.monotonic()
        span_s = max(now - self._at, 1e-3)
        memory = psutil.virtual_memory()
        readings = [
            Reading("cpu/percent", psutil.cpu_percent(), "%"),
            Reading("memory/percent", memory.percent, "%"),
            Reading("memory/available_mib", memory.available / 2**20, "MiB"),
            Reading("disk/percent", psutil.disk_usage("/").percent, "%"),
        ]
        network, disk = psutil.net_io_counters(), psutil.disk_io_counters()
        if network is not None and self._network is not None:
            received = (network.bytes_recv - self._network.bytes_recv) / span_s
            sent = (network.bytes_sent - self._network.bytes_sent) / span_s
            readings.append(Reading("network/received_kib_s", received / 1024, "KiB/s"))
            readings.append(Reading("network/sent_kib_s", sent / 1024, "KiB/s"))
        if disk is not None and self._disk is not None:
            written = (disk.write_bytes - self._disk.write_bytes) / span_s
            readings.append(Reading("disk/written_kib_s", written / 1024, "KiB/s"))
        self._at, self._network, self._disk = now, network, disk
        return readings


class View:
    """Shows the newest value of each topic as it arrives."""

    def __init__(self, device: str, broker: Broker) -> None:
        """Shows nothing yet."""
        self._device = device
        self._broker = broker
        self._values: dict[str, tuple[str, str]] = {}
        self.received: int = 0

    def take(self, topic: str, payload: bytes) -> None:
        """Takes a message; one that is not a reading of ours is left out."""
        try:
            reading = json.loads(payload)
            value, unit = f"{float(reading['value']):,.1f}", str(reading["unit"])
        except (ValueError, KeyError, TypeError):
            return
        self._values[topic] = (value, unit)
        self.received += 1

    def __rich__(self) -> Group:
        """Draws the table."""
        table = Table(title=f"devices/{self._device}, over TLS, as {VIEWER} receives it")
        table.add_column("topic")
        table.add_column("value", justify="right")
        table.add_column("unit")
        for topic, (value, unit) in sorted(self._values.items()):
            table.add_row(Text(topic), value, unit)
        counters = self._broker.counters()
        below = (
            f"{counters['publishes_received']:,} messages in, "
            f"{counters['publishes_sent']:,} out, "
            f"{counters['connections_now']} connections. Ctrl-C stops."
        )
        return Group(table, Text(below, style="dim"))


def device_name() -> str:
    """Makes a name for this machine out of its host name."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()).strip("-")[:_DEVICE_CHARACTERS_MAX]
    return name or "this-machine"


def prepare(folder: Path) -> str:
    """Makes or opens the home, enrols the identities; gives the device's name.

    Raises:
        CasemateError: The home cannot be made or used.
    """
    if not (folder / config.FILE_NAME).exists():
        # A demonstration is for this machine; `casemate up` is for all that may reach it.
        print_report(make_home(folder, host="127.0.0.1"))
    home = Home.open(folder)
    name = device_name()
    for identity, role in ((name, "sensor"), (VIEWER, "console")):
        if not home.has_identity(identity):
            home.add_device(identity, role)
    return name


def _configuration(folder: Path, port: int | None) -> config.Configuration:
    """Gives the home's configuration, with another port where one was asked for."""
    read = config.load(folder)
    if port is None:
        return read
    first, *others = read.listeners
    if port == 0:
        others = [one.model_copy(update={"port": 0}) for one in others]
    return read.model_copy(update={"listeners": (first.model_copy(update={"port": port}), *others)})


async def demonstrate(broker: Broker, device: str, seconds: float | None, console: Console) -> int:
    """Publishes and shows until it is told to stop.

    Args:
        broker: Running.
        device: Name of this machine's identity.
        seconds: How long; None until a signal.
        console: Where to.

    Returns:
        How many readings the viewer received.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    view = View(device, broker)
    async with (
        broker.client(VIEWER) as viewer,
        broker.client(device) as publisher,
        _shown(view, console),
    ):
        await viewer.subscribe(f"devices/{device}/#", qos=1)
        work = [
            asyncio.create_task(_publish(publisher, device)),
            asyncio.create_task(_receive(viewer, view, console)),
            asyncio.create_task(stopped.wait()),
        ]
        done, pending = await asyncio.wait(
            work, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
    return view.received


async def _publish(client: Client, device: str) -> None:
    meter = Meter()
    while True:
        await asyncio.sleep(INTERVAL_S)
        for reading in meter.read():
            payload = json.dumps({"value": round(reading.value, 2), "unit": reading.unit})
            await client.publish(f"devices/{device}/{reading.name}", payload, qos=1, retain=True)


async def _receive(client: Client, view: View, console: Console) -> None:
    async for message in client.messages:
        view.take(message.topic, message.payload)
        if not console.is_terminal:
            # A file or a pipe gets a line for each message in place of a picture.
            console.print(f"{message.topic} {message.payload!r}", markup=False, highlight=False)


@contextlib.asynccontextmanager
async def _shown(view: View, console: Console) -> AsyncIterator[None]:
    if console.is_terminal:
        with Live(view, console=console, refresh_per_second=4):
            yield
    else:
        yield


def main(arguments: list[str] | None = None) -> int:
    """Runs the demonstration; gives the exit code."""
    parser = argparse.ArgumentParser(prog="casemate demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(FOLDER), help=f"default: {FOLDER}")
    parser.add_argument("--port", type=int, default=None, help="default: 8883; 0: a free one")
    parser.add_argument("--seconds", type=float, default=None, help="end by itself")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        return _run(options.home.absolute(), options.port, options.seconds, console)
    except CasemateError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False, highlight=False)
        return 1


def _run(folder: Path, port: int | None, seconds: float | None, console: Console) -> int:
    device = prepare(folder)
    with Broker(folder, configuration=_configuration(folder, port)) as broker:
        print_posture(broker, as_json=False)
        for line in next_steps(broker, device, viewer=VIEWER):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        received = asyncio.run(demonstrate(broker, device, seconds, console))
    console.print(f"stopped; {received:,} readings arrived", highlight=False)
    # A demonstration in which nothing arrived has shown nothing.
    return 0 if received or seconds is None else 1


if __name__ == "__main__":
    sys.exit(main())
