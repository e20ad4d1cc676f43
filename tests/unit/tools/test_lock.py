"""The lock files name one version of everything that the project asks for, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ("requirements.lock", "requirements-types.lock")
PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==([0-9][0-9a-z.]*)")


def pins() -> dict[str, str]:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in LOCKS]
    lines = [line for line in "".join(texts).splitlines() if line and not line.startswith("#")]
    found = [PIN.fullmatch(line) for line in lines]
    assert all(found), [line for line, pin in zip(lines, found, strict=True) if not pin]
    return {_plain(pin[1]): pin[2] for pin in found if pin}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def asked() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = list(project["project"]["dependencies"])
    for extra in project["project"].get("optional-dependencies", {}).values():
        lines += extra
    return lines + list(project["build-system"]["requires"])


def test_each_requirement_of_the_project_is_pinned() -> None:
    names = {_plain(re.split(r"[\[<>=!~; ]", line)[0]) for line in asked()}
    assert names - set(pins()) == set()


def test_each_pin_is_at_least_the_version_that_the_project_asks_for() -> None:
    found = pins()
    for line in asked():
        least = re.search(r">=\s*([0-9.]+)", line)
        if least is None:
            continue
        pinned = found[_plain(re.split(r"[\[<>=!~; ]", line)[0])]
        assert _number(pinned) >= _number(least[1]), line


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
