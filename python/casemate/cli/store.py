"""`casemate store`: looks at what a broker keeps, verifies it, backs it up and moves it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from casemate.cli import console
from casemate.cli.console import HomeOption, JsonOption, WrongUsage

if TYPE_CHECKING:
    from casemate import native
    from casemate.config import Store

app: typer.Typer = typer.Typer(
    name="store",
    help="What is kept on disk: look, verify, back up, move.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DAMAGED = 1
_NOTHING_KEPT = 'nothing is kept: durability = "memory"'

_Result = TypeVar("_Result")


@app.command(short_help="Say what is there, file by file.")
def inspect(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Read the store of a home and say what is there, file by file; changes nothing.

    A broker may serve it meanwhile; behind its last commit then stands the beginning of the next,
    which counts as torn.
    """
    from casemate.broker import is_served

    folder = _folder(home)
    place, opened = _open(folder)
    found = _read(place, opened.inspect)
    values = {
        "folder": str(place),
        "served": is_served(folder),
        "files": [_segment(one) for one in found.segments],
        "commits": found.commits,
        "next_commit": found.next_number,
        "batches": found.batches,
        "batch_bytes": found.batch_bytes,
        "torn_bytes": found.torn_bytes,
        "retired": [list(one) for one in found.retired],
        "set_aside": found.set_aside,
        "damage": found.damage,
    }
    if as_json:
        console.answer(values, (), as_json=True)
        return
    console.answer(values, _summary(values), as_json=False)
    rows = values["files"]
    if found.segments and isinstance(rows, list):
        columns = ("file", "format", "key", "bytes", "commits", "first", "last", "torn", "damaged")
        console.answer_table(columns, rows, as_json=False)


@app.command(short_help="Read all of it and say what is damaged.")
def verify(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Read every commit of the store of a home, and say what is damaged or missing.

    Changes nothing; a broker may serve it meanwhile. Ends with 0 where all is sound, with 1 where
    something is damaged, and with 3 where the store cannot be read.
    """
    place, opened = _open(_folder(home))
    found = _read(place, opened.inspect)
    wrong = [*found.damage, *(f"{one}: set aside as damaged" for one in found.set_aside)]
    console.answer(
        {
            "folder": str(place),
            "sound": not wrong,
            "commits": found.commits,
            "batch_bytes": found.batch_bytes,
            "torn_bytes": found.torn_bytes,
            "damage": found.damage,
            "set_aside": found.set_aside,
        },
        [
            *(f"damaged    {one}" for one in wrong),
            f"{'read' if wrong else 'sound':<10} {found.commits:,} commits, "
            f"{found.batch_bytes:,} bytes in {place}",
        ],
        as_json=as_json,
    )
    return _DAMAGED if wrong else 0


@app.command(short_help="Write it anew, without what is not needed.")
def compact(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Write the store of a home anew, without what is not needed, all of it under the key of now.

    A broker does this by itself while it serves; this is for a store that nobody serves, such as
    after a change of its key. Nothing is removed before all is safe.
    """
    from casemate.broker.keeping import size

    place, opened = _open(_folder(home))
    before = size(place)
    done = _work(opened.compact, lambda: f"writing anew, {_bytes(before)} before")
    after = size(place)
    console.answer(
        {
            "folder": str(place),
            "sessions": done.sessions,
            "retained": done.retained,
            "files_gone": done.segments_gone,
            "bytes_before": before,
            "bytes_after": after,
        },
        [
            f"compact    {place}: {_bytes(after)}, {_bytes(before)} before",
            f"kept       {done.sessions:,} sessions, {done.retained:,} retained messages",
        ],
        as_json=as_json,
    )


@app.command(short_help="Copy it, while a broker serves it or not.")
def backup(
    target: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the store of a home into a new folder, while a broker serves it or not.

    The copy holds all that was acknowledged when it began. It is made beside and renamed when it is
    safe, so that a copy that was cut short is never taken for a whole one. What is encrypted stays
    so, and the key is not needed. To restore it, stop the broker, move its store away, and copy the
    folder to its place.
    """
    from casemate import files, native
    from casemate.broker.keeping import size
    from casemate.errors import StoreError

    place, _ = _described(_folder(home))
    target = target.absolute()
    if target.exists() or target.is_symlink():
        raise WrongUsage(f"{target} is there already", hint="name a folder that is not there yet")
    if not target.parent.is_dir():
        raise WrongUsage(f"there is no folder {target.parent}", hint="make it first")
    beside = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    total = size(place)
    try:
        copied = _work(
            lambda: native.Store(place).backup(beside),
            lambda: f"copied {_bytes(size(beside))} of {_bytes(total)}",
        )
        # The lock of the copy's folder, which nobody holds any more.
        (beside / "lock").unlink(missing_ok=True)
        beside.rename(target)
        files.sync_folder(target.parent)
    except OSError as error:
        raise StoreError(f"{target} cannot be made", cause=files.reason(error)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    console.answer(
        {"from": str(place), "to": str(target), "files": copied.segments, "bytes": copied.bytes},
        [f"copied     {copied.segments:,} files, {_bytes(copied.bytes)}, to {target}"],
        as_json=as_json,
    )


@app.command(short_help="Write all of it as JSON lines.")
def export(
    file: Annotated[Path, typer.Argument(help="A file that is not there yet; made with 0600.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write sessions, subscriptions, what waits and retained messages of a home as JSON lines.

    For a look with other programs, or another store: "casemate store import" reads it. No broker
    may serve the home meanwhile. The file has everything in plain, and only its owner may read it.
    """
    from casemate import files
    from casemate.cli import portable
    from casemate.errors import StoreError

    place, opened = _open(_folder(home))
    file = file.absolute()
    if file.exists() or file.is_symlink():
        raise WrongUsage(f"{file} is there already", hint="name a file that is not there yet")
    beside = file.with_name(f".{file.name}.unfinished")
    tally = portable.Tally()

    def write() -> None:
        descriptor = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, files.PRIVATE_MODE
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), files.PRIVATE_MODE)
            portable.write(opened, out, tally)
            out.flush()
            os.fsync(out.fileno())
        beside.rename(file)
        files.sync_folder(file.parent)

    try:
        _work(write, lambda: f"written {tally.words()}")
    except OSError as error:
        raise StoreError(f"{file} cannot be written", cause=files.reason(error)) from error
    finally:
        beside.unlink(missing_ok=True)
    console.answer(
        {"from": str(place), "to": str(file), **asdict(tally)},
        [f"exported   {tally.words()}, to {file}"],
        as_json=as_json,
    )


@app.command("import", short_help="Make a store of JSON lines.")
def import_(
    file: Annotated[Path, typer.Argument(help="As export has written it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the store of a home of what "casemate store export" has written.

    The home has no store yet, or an empty one, and no broker serves it. All of the file is in the
    store afterwards, or nothing. What no broker can have kept is refused with its line.
    """
    from casemate import config, files
    from casemate.broker import is_served, keeping
    from casemate.cli import portable
    from casemate.errors import StoreError, StoreInUse

    folder = _folder(home)
    described = config.load(folder).store
    if described.durability == "memory":
        raise StoreError(_NOTHING_KEPT, hint='use durability = "disk" in [store]')
    console.require_file(file)
    if is_served(folder):
        raise StoreInUse(f"a broker serves {folder}", hint="stop it first")
    place = keeping.folder_of(described, folder)
    _require_empty(place)
    beside = place.with_name(f".{place.name}.unfinished")
    shutil.rmtree(beside, ignore_errors=True)
    tally = portable.Tally()

    def read() -> None:
        new = described.model_copy(update={"folder": beside})
        filling = keeping.opened(new, folder).fill()
        portable.read(file, filling, tally)
        filling.finish()
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)
        files.sync_folder(place.parent)

    try:
        _work(read, lambda: f"read {tally.words()}")
    except OSError as error:
        raise StoreError(f"{place} cannot be made", cause=files.reason(error)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    console.answer(
        {"from": str(file.absolute()), "to": str(place), **asdict(tally)},
        [f"imported   {tally.words()}, to {place}"],
        as_json=as_json,
    )


def _require_empty(place: Path) -> None:
    from casemate.errors import StoreError

    # The lock is left where it is by a broker that ends.
    held = [one.name for one in place.glob("*") if one.name != "lock"] if place.exists() else []
    if held:
        raise StoreError(f"{place} holds something already", hint="move it away first")


def _folder(home: Path | None) -> Path:
    return console.open_home(home).path


def _described(folder: Path) -> tuple[Path, Store]:
    """Finds the store of a home; raises StoreError where there is none."""
    from casemate import config
    from casemate.broker import keeping
    from casemate.errors import StoreError

    described = config.load(folder).store
    if described.durability == "memory":
        raise StoreError(_NOTHING_KEPT, hint='use durability = "disk" in [store]')
    place = keeping.folder_of(described, folder)
    if not place.exists():
        raise StoreError(
            f"{place}: nothing is kept there yet", hint="a broker makes it at its first start"
        )
    return place, described


def _open(folder: Path) -> tuple[Path, native.Store]:
    from casemate.broker import keeping

    place, described = _described(folder)
    return place, keeping.opened(described, folder)


def _read(place: Path, work: Callable[[], _Result]) -> _Result:
    from casemate.broker.keeping import size

    total = size(place)
    return _work(work, lambda: f"reading {_bytes(total)}")


def _work(work: Callable[[], _Result], words: Callable[[], str]) -> _Result:
    from casemate import native
    from casemate.broker.keeping import store_error
    from casemate.cli.progress import watched

    try:
        return watched(work, words)
    except native.StoreRefused as error:
        raise store_error(error) from error


def _segment(one: native.StoreSegment) -> dict[str, object]:
    first, last = one.numbers or (None, None)
    return {
        "file": one.name,
        "format": one.format,
        "key": one.key,
        "bytes": one.bytes,
        "commits": one.commits,
        "first": first,
        "last": last,
        "torn": one.torn_bytes,
        "damaged": one.is_damaged,
    }


def _summary(values: dict[str, Any]) -> Iterator[str]:
    served = "a broker serves it" if values["served"] else "no broker serves it"
    yield f"store      {values['folder']} ({served})"
    total = sum(one["bytes"] for one in values["files"])
    yield f"files      {len(values['files']):,}, {_bytes(total)}"
    yield f"commits    {values['commits']:,}, the next is number {values['next_commit']:,}"
    for one in values["set_aside"]:
        yield f"set aside  {one}"
    for one in values["damage"]:
        yield f"damaged    {one}"


def _bytes(count: int) -> str:
    """Gives a number of bytes in its largest unit."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"
