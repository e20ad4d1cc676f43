"""`casemate store`: looks at what a broker keeps, verifies it, writes it anew, and backs it up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
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
    help="What is kept on disk: look, verify, back up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DAMAGED = 1

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


def _folder(home: Path | None) -> Path:
    return console.open_home(home).path


def _described(folder: Path) -> tuple[Path, Store]:
    """Finds the store of a home; raises StoreError where there is none."""
    from casemate import config
    from casemate.broker import keeping
    from casemate.errors import StoreError

    described = config.load(folder).store
    if described.durability == "memory":
        raise StoreError(
            'nothing is kept: durability = "memory"', hint='use durability = "disk" in [store]'
        )
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
