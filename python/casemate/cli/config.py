"""`casemate config`: checks and shows the configuration, and where each value comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption

if TYPE_CHECKING:
    from casemate.config import Setting

app: typer.Typer = typer.Typer(
    name="config",
    help="The configuration: casemate.toml and CASEMATE_… variables.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DIFFERENT = 1
_WIDTH = 60
"""Column at which sources stand, unless a value is longer."""


@app.command(short_help="Check casemate.toml and the variables over it.")
def check(
    draft: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A draft, in place of the home's casemate.toml."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check casemate.toml and the variables over it; nothing is started or changed.

    Ends with 0 where a broker would take it and with 3 where it would not. Certificates, policy
    and accounts are looked at by "casemate doctor".
    """
    from casemate import config

    if draft is not None:
        console.require_file(draft)
    reading = config.read(console.home_folder(home), file=draft)
    weakened = config.weakenings(reading.configuration)
    listeners = [name for name, _ in reading.configuration.named()]
    variables = sorted(set(reading.variables.values()))
    console.answer(
        {
            "file": str(reading.document.file),
            "valid": True,
            "listeners": listeners,
            "variables": variables,
            "weakenings": list(weakened),
        },
        [
            f"valid      {reading.document.file}",
            f"listeners  {', '.join(listeners)}",
            *(f"variable   {name}" for name in variables),
            *(f"weakened   {words}" for words in weakened),
        ],
        as_json=as_json,
    )


@app.command(short_help="Show each option, its value and where it comes from.")
def show(
    everything: Annotated[bool, typer.Option("--all", help="Options without a value too.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show every option that is in force, and where it comes from: a line, a variable, a default.

    Variables are those of this process: a broker that runs elsewhere has its own.
    """
    from casemate import config

    settings = [
        one
        for one in config.read(console.home_folder(home)).settings()
        if everything or one.value is not None
    ]
    _print(settings, as_json=as_json)


@app.command(short_help="Show what differs from defaults, or from the broker.")
def diff(
    running: Annotated[
        bool, typer.Option("--running", help="Against what the home's running broker does.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what is set otherwise than by default; with --running what the broker does otherwise.

    With --running it ends with 1 where there are differences, or where no broker runs. What the
    broker got from variables of its own is a difference, unless this process has them too.
    """
    from casemate import config

    folder = console.home_folder(home)
    reading = config.read(folder)
    if not running:
        changed = [one for one in reading.settings() if _is_changed(one)]
        _print(changed, as_json=as_json, compared=True)
        return 0
    from casemate.broker import read_status
    from casemate.cli.drift import drift, unconfigured

    status = read_status(folder)
    found = [*drift(reading.configuration, status), *unconfigured(reading.configuration, status)]
    lines = found or ["the broker listens as configured"]
    console.answer({"differences": found}, lines, as_json=as_json)
    return _DIFFERENT if found else 0


@app.command(short_help="Print the JSON Schema of casemate.toml, for editors.")
def schema(as_json: JsonOption = False) -> None:
    """Print the JSON Schema of casemate.toml, for editors.

    It is JSON with and without --json, which makes an object of an error.
    """
    from casemate import config

    typer.echo(config.schema_text(), nl=False)


def _is_changed(setting: Setting) -> bool:
    return setting.source.kind != "default" and setting.value != setting.default


def _print(settings: list[Setting], *, as_json: bool, compared: bool = False) -> None:
    if as_json:
        typer.echo(json.dumps([_row(one) for one in settings]))
        return
    written = [f"{one.name} = {_written(one.value)}" for one in settings]
    width = min(max(map(len, written), default=0), _WIDTH)
    for one, words in zip(settings, written, strict=True):
        default = f"; default: {_written(one.default)}" if compared else ""
        typer.echo(console.printable(f"{words:{width}}  # {one.source}{default}"))


def _row(setting: Setting) -> dict[str, object]:
    from casemate.config.variables import variable

    return {
        "option": setting.name,
        "value": setting.value,
        "default": setting.default,
        "source": setting.source.kind,
        "where": setting.source.where or None,
        "variable": variable(setting.place),
    }


def _written(value: object) -> str:
    """Writes a value as in the file; nothing where there is none."""
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)
