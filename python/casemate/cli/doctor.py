"""`casemate doctor`: each deviation from what is safe, what it risks, and how it is mended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption
from casemate.errors import CasemateError, FileExposed, HomeError, HomeMissing

if TYPE_CHECKING:
    from casemate.cli.finding import Finding
    from casemate.config import Reading
    from casemate.identity import Account

_COUNTED = ("danger", "warning", "note")
_WEIGHTS = (*_COUNTED, "advice")


def doctor(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Look through a home and its running broker; say each deviation, its risk, and what mends it.

    Changes nothing. Ends with 0 where there is nothing but notes or advice, with 1 where there are
    warnings, with 2 where there is a danger, and with 3 where there is no home.
    """
    from casemate.cli.finding import EXIT_CODES, worst
    from casemate.pki import utc_now

    folder = console.home_folder(home)
    findings = sorted(examine(folder, utc_now()), key=lambda one: _WEIGHTS.index(one.weight))
    gravest = worst(findings)
    if as_json:
        said = [
            {
                "check": one.check,
                "weight": one.weight,
                "found": one.words,
                "risk": one.risk,
                "mend": one.mend,
            }
            for one in findings
        ]
        typer.echo(json.dumps({"home": str(folder), "worst": gravest, "findings": said}))
    else:
        for line in _lines(findings):
            typer.echo(console.printable(line))
    return EXIT_CODES[gravest]


def examine(
    home: Path, now: datetime, environment: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Yields everything that is not as it should be; what cannot be looked at is a finding too.

    Args:
        home: The folder.
        now: In UTC.
        environment: Variables over the configuration; None takes those of this process.

    Raises:
        HomeMissing: There is no home.
        HomeError: The folder cannot be looked at.
    """
    from casemate import config
    from casemate.cli import access, kept, upkeep
    from casemate.cli.finding import Finding
    from casemate.files import reason
    from casemate.policy import FILE_NAME, Policy

    try:
        is_home = (home / config.FILE_NAME).is_file()
    except OSError as error:
        raise HomeError(f"{home} cannot be looked at", cause=reason(error)) from error
    if not is_home:
        raise HomeMissing(
            f"there is no home in {home}", hint="name its folder with --home or CASEMATE_HOME"
        )
    yield from upkeep.modes(home)
    reading: Reading | None = None
    try:
        reading = config.read(home, environment)
    except CasemateError as error:
        yield Finding("configuration-wrong", str(error), error.hint or "mend the line")
    else:
        yield from access.listeners(reading)
        yield from access.limits(reading)
        yield from access.log(reading)
    accounts: tuple[Account, ...] = ()
    try:
        accounts = _accounts(home)
    except FileExposed:
        # Said already, with all other files.
        pass
    except CasemateError as error:
        mend = error.hint or "restore accounts.db from a copy"
        yield Finding("accounts-unreadable", str(error), mend)
    try:
        policy = Policy.load(home / FILE_NAME)
    except CasemateError as error:
        yield Finding("policy-wrong", str(error), error.hint or "mend the line")
    else:
        yield from access.roles(policy, reading, accounts)
    yield from upkeep.certificates(home, reading, now)
    yield from upkeep.expiries(accounts, home, now)
    yield from upkeep.clock(home, now)
    yield from upkeep.authority_keys(home)
    yield from upkeep.broker(home, reading, now)
    if reading is not None:
        yield from kept.store(reading, home)


def _accounts(home: Path) -> tuple[Account, ...]:
    from casemate.identity import FILE_NAME, Accounts

    with Accounts(home / FILE_NAME) as store:
        return store.list()


def _lines(findings: list[Finding]) -> Iterator[str]:
    for one in findings:
        yield f"{one.weight:8} {one.words}  [{one.check}]"
        yield f"{'':8} risk: {one.risk}"
        yield f"{'':8} mend: {one.mend}"
    counts = Counter[str](one.weight for one in findings)
    said = [
        f"{counts[one]} {one}{'s' if counts[one] > 1 else ''}" for one in _COUNTED if counts[one]
    ]
    yield f"found    {', '.join(said) or 'nothing'}"
