"""`casemate lab`: a throw-away broker for tests and benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from casemate.cli.console import JsonOption, LogFormatOption, LogLevelOption


def _port(name: str, words: str) -> Any:  # noqa: ANN401 - as typer's own.
    return typer.Option(name, min=0, max=65_535, help=words)


def lab(
    port: Annotated[int | None, _port("--port", "Plaintext port; else free.")] = None,
    tls_port: Annotated[int | None, _port("--tls-port", "TLS port; else free.")] = None,
    mtls_port: Annotated[
        int | None, _port("--mtls-port", "TLS port that requires a client certificate.")
    ] = None,
    ws_port: Annotated[int | None, _port("--ws-port", "WebSocket port; else free.")] = None,
    wss_port: Annotated[
        int | None, _port("--wss-port", "Port of WebSocket over TLS; else free.")
    ] = None,
    unix_socket: Annotated[
        Path | None,
        typer.Option("--unix-socket", metavar="FILE", help="Unix socket; else one in --data."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep the state here.")
    ] = None,
    pid_file: Annotated[
        Path | None, typer.Option("--pid-file", metavar="FILE", help="Write the process id here.")
    ] = None,
    shards: Annotated[
        int, typer.Option("--shards", min=0, max=64, help="Threads; 0: one for each core.")
    ] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A limit, as in casemate.toml."),
    ] = None,
    log_format: LogFormatOption = None,
    log_level: LogLevelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a throw-away broker on loopback, for tests and benchmarks.

    Prints one JSON line when it is ready, with and without --json, and lives until SIGTERM or
    SIGINT. Its two users have
    random passwords: "all" may do everything; "some" may use users/some/# and public/#, and may
    read devices/#. A password check costs 1 MiB and one pass of Argon2id, far less than in
    service; --set argon2_memory_kib=65536 --set argon2_time=3 is what a real broker takes.
    """
    from casemate.cli import journal
    from casemate.cli.serve import until_stopped
    from casemate.config import Log
    from casemate.lab import Lab, LabOptions, remove_pid, write_pid

    options = LabOptions(
        port=port,
        tls_port=tls_port,
        mtls_port=mtls_port,
        ws_port=ws_port,
        wss_port=wss_port,
        unix_socket=unix_socket,
        data=data,
        shards=shards,
        settings=tuple(settings or ()),
    )
    with (
        until_stopped() as stopped,
        journal.begun(journal.settings(Log(), log_format, log_level)) as events,
        Lab(options, events.take) as running,
    ):
        journal.say_listening(running.broker, events)
        if pid_file is not None:
            write_pid(pid_file)
        try:
            typer.echo(json.dumps(running.ready()))
            while not stopped.wait(0.5):
                running.broker.check()
        finally:
            if pid_file is not None:
                remove_pid(pid_file)
