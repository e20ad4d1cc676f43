"""What a broker says when it stands: where it listens, and what it allows against its default."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import typer

from casemate.broker import Broker, Listening, StoreStatus, reachable
from casemate.home import Report

_CERTIFICATES = {
    "none": "no client certificates",
    "optional": "certificate or password",
    "required": "client certificate required",
}


def print_report(report: Report) -> None:
    """Says what a first run has made."""
    typer.echo(f"made       {report.home}")
    for path in report.paths:
        typer.echo(f"           {path}")
    typer.echo(f"CA         SHA-256 {report.fingerprint}")
    typer.echo(f"valid for  {', '.join(report.server_names)}")
    typer.echo(f'operator   "{report.operator}", proven by its certificate; there is no password')
    if not report.keys_encrypted:
        typer.echo("keys       the authority's keys are not encrypted; keep pki/ to yourself")


def print_posture(broker: Broker, *, as_json: bool) -> None:
    """Prints listeners, weakenings and problems, for people or as one JSON line."""
    status = broker.status()
    if as_json:
        typer.echo(json.dumps({**asdict(status), "home": str(broker.home)}))
        return
    for listening in status.listeners:
        typer.echo(f"listening  {describe(listening)}")
    for weakening in status.weakenings:
        typer.echo(f"weakened   {weakening}")
    for problem in status.problems:
        typer.echo(f"problem    {problem}")
    for line in store_lines(status.store):
        typer.echo(line)
    if not status.weakenings:
        typer.echo("posture    nobody is anonymous, nothing in plaintext leaves this machine")
    typer.echo(f"home       {broker.home} (pid {status.pid}; Ctrl-C stops)")


_TOLD_BYTES_MIN = 1_000_000
"""What was read at the start is told from this size on, in bytes."""

_KEPT = {
    "disk": "on disk before it is acknowledged",
    "os": "with the operating system before it is acknowledged; power loss takes the latest",
    "memory": "in memory; nothing outlives the broker",
}


def store_lines(store: StoreStatus) -> list[str]:
    """Gives in lines how durable what is acknowledged is, and how its store is."""
    kept = _KEPT.get(store.durability, store.durability)
    words = f"{kept}, encrypted" if store.is_encrypted else kept
    if store.bytes_read >= _TOLD_BYTES_MIN:
        words += f" ({store.bytes_read / 1e6:,.1f} MB read in {store.read_ms:,} ms)"
    found = [f"kept       {words}"]
    found += [f"damaged    {one}" for one in store.damage]
    if store.failing:
        what = "the disk is full" if store.is_full else "the store fails"
        found.append(f"failing    {what}, nothing that must be kept is acknowledged")
        found.append(f"           {store.failing}")
    return found


def describe(listening: Listening) -> str:
    """Gives one listener in a line."""
    host = f"[{listening.host}]" if ":" in listening.host else listening.host
    if listening.kind == "unix":
        return f"{listening.path}  unix socket, password"
    asked = _CERTIFICATES[listening.client_certificates]
    if listening.kind == "tls":
        return f"{host}:{listening.port}  TLS 1.3, {asked}"
    if listening.kind == "wss":
        return f"wss://{host}:{listening.port}{listening.path}  TLS 1.3, {asked}"
    if listening.kind == "ws":
        return f"ws://{host}:{listening.port}{listening.path}  plaintext, password"
    return f"{host}:{listening.port}  plaintext, password"


def next_steps(broker: Broker, device: str, *, viewer: str) -> list[str]:
    """Gives the lines that a newcomer pastes into another terminal.

    Args:
        broker: Running.
        device: Name for the example; where it exists already the lines use it as it is.
        viewer: A local identity that may read what devices say.
    """
    home = broker.home
    at = "" if home == Path.cwd() else f" --home {shlex.quote(_short(home))}"
    tls = next((one for one in broker.addresses if one.kind == "tls"), None)
    known = (home / "identities" / device).is_dir()
    program = _program()
    lines = ["", "Paste next, in another terminal:"]
    if not known:
        lines.append(f"  {program} device add {device} --role sensor{at}")
    lines.append(f"  {program} sub 'devices/#' -v --as {viewer}{at}")
    lines.append(f"  {program} pub devices/{device}/temp 21.5 --as {device}{at}")
    if tls is not None:
        own = shlex.quote(_short(home / "identities" / device))
        lines += [
            "or with any other client, such as mosquitto's:",
            f"  mosquitto_pub -h {reachable(tls.host)} -p {tls.port} --cafile {own}/ca.crt"
            f" --cert {own}/client.crt --key {own}/client.key"
            f" -V mqttv5 -t devices/{device}/temp -m 21.5",
        ]
    lines += [f"  {program} status{at}", ""]
    return lines


def _program() -> str:
    """Gives the words that start this program where the reader stands."""
    if shutil.which("casemate") is not None:
        return "casemate"
    return shlex.quote(_short(Path(sys.executable).with_name("casemate")))


def _short(path: Path) -> str:
    """Gives a path relative to where the reader stands, if it lies below."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
