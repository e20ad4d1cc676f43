"""`casemate simulate`: a fleet of devices from a small file, for demos and for tests."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption, PassphraseFile, WrongUsage

if TYPE_CHECKING:
    from casemate.cli.fleet import Fleet
    from casemate.cli.swarm import Member, Swarm, Tally
    from casemate.home import Home

_UNFINISHED = 1
_RELOAD_S = 30.0


def simulate(
    file: Annotated[Path, typer.Argument(metavar="FLEET.TOML", help="Devices and what they do.")],
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=86_400, help="Time after which it ends.")
    ] = 60.0,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, max=100_000_000, help="Messages after which it ends."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of readings and waits.")] = 1,
    enrol: Annotated[
        bool, typer.Option("--enrol", help="Add the devices that the home does not know.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    yes_really: Annotated[
        bool,
        typer.Option(
            "--yes-really-off-loopback", help="Let it load a broker that is not on this machine."
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run a fleet of devices against the broker of a home, until a bound or Ctrl-C.

    Each device proves itself by its identity in the home, or by user name and password. A
    terminal shows one picture that changes, a file or a pipe gets a line each second; with --json
    it is an object a line. Ends with 1 where a device failed or a message was refused.
    """
    import asyncio

    from casemate.cli.fleet import read_fleet
    from casemate.cli.swarm import Swarm

    fleet = read_fleet(file)
    opened = console.open_home(home)
    host, port = _address(fleet, opened, yes_really=yes_really)
    if enrol:
        _enrol(fleet, opened, console.passphrase(passphrase_file, opened))
    swarm = Swarm(list(_members(fleet, opened, host, port)), count=count, seed=seed)
    with _showing(as_json=as_json) as show:
        asyncio.run(_run(swarm, seconds, show))
    for problem in swarm.tally.problems:
        typer.echo(f"problem  {console.printable(problem)}", err=True)
    return _UNFINISHED if swarm.tally.failed or swarm.tally.refused else 0


async def _run(swarm: Swarm, seconds: float, show: Callable[[Tally], None]) -> None:
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, swarm.end)
    await swarm.run(seconds, show)
    # Once more, when everybody has gone: what came last counts too.
    show(swarm.tally)


def _address(fleet: Fleet, opened: Home, *, yes_really: bool) -> tuple[str, int]:
    from casemate.cli.local import tls_address

    if fleet.host is None or fleet.port is None:
        host, port = tls_address(opened.path)
    else:
        # Not looked up: what a name means is for others to say.
        host, port = "127.0.0.1" if fleet.host == "localhost" else fleet.host, fleet.port
    if _is_loopback(host):
        return host, port
    if not yes_really:
        raise WrongUsage(
            f"{host} is not this machine; a fleet is load, and an attack on a broker that does "
            "not expect it: use 127.0.0.1, or --yes-really-off-loopback where the broker is yours"
        )
    typer.echo(f"warning: the fleet loads {console.printable(host)}:{port}", err=True)
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _enrol(fleet: Fleet, opened: Home, passphrase: str | None) -> None:
    from casemate.broker import ask_to_reload, is_served

    unknown = [
        (name, described)
        for name, _, described in fleet.members()
        if described.username is None and not opened.has_identity(name)
    ]
    for name, described in unknown:
        if described.role is None:
            raise WrongUsage(f'"{name}" has no role, which --enrol needs')
    for name, described in unknown:
        opened.add_device(name, described.role or "", passphrase)
    if unknown and is_served(opened.path):
        # A running broker sees new accounts within a second by itself; the fleet is faster.
        ask_to_reload(opened.path, _RELOAD_S)


def _members(fleet: Fleet, opened: Home, host: str, port: int) -> Iterator[Member]:
    from casemate.cli.swarm import Member
    from casemate.layout import PKI
    from casemate.pki import ROOT_CERTIFICATE

    for name, number, described in fleet.members():
        arguments: dict[str, Any] = {"host": host, "port": port, "client_id": name}
        if described.username is not None and described.password_file is not None:
            arguments["username"] = described.username
            arguments["password"] = console.read_secret(described.password_file)
        else:
            files = opened.local_identity(name)
            arguments |= {"cert_file": files.certificate, "key_file": files.key}
        if fleet.plaintext:
            # Off loopback the client itself refuses this.
            arguments["tls"] = False
        else:
            arguments["ca_file"] = opened.path / PKI / ROOT_CERTIFICATE
        yield Member(name, number, described, arguments)


@contextmanager
def _showing(*, as_json: bool) -> Iterator[Callable[[Tally], None]]:
    """Gives what shows a tally: a picture, a line or an object, with the time since the start."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    begun_s = time.monotonic()
    screen = Console()

    def print_line(tally: Tally) -> None:
        elapsed_s = time.monotonic() - begun_s
        if as_json:
            typer.echo(json.dumps({"elapsed_s": round(elapsed_s, 1), **asdict(tally)}))
        else:
            typer.echo(_line(tally, elapsed_s))

    if as_json or not screen.is_terminal:
        yield print_line
        return
    with Live(console=screen, auto_refresh=False) as live:

        def draw(tally: Tally) -> None:
            words = _line(tally, time.monotonic() - begun_s).replace("  ", "\n")
            live.update(Text(words), refresh=True)

        yield draw


def _line(tally: Tally, elapsed_s: float) -> str:
    rate = tally.sent / elapsed_s if elapsed_s > 0 else 0.0
    return (
        f"{elapsed_s:.0f} s  {tally.connected} of {tally.devices} devices connected"
        f"  {tally.sent:,} sent ({rate:,.1f}/s)  {tally.received:,} received"
        f"  {tally.refused:,} refused  {tally.failed} failed"
    )
