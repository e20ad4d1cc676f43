"""What a browser says when it opens a WebSocket: the path, and the origin of its page."""

from __future__ import annotations

import re

from pydantic_core import PydanticCustomError

WS_PATH = "/mqtt"
PATH_CHARACTERS_MAX = 256
ORIGINS_MAX = 64

_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*\Z", re.ASCII)
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?\Z",
    re.ASCII,
)
_PORTS = {"http": "80", "https": "443"}
_ORIGIN_HINT = 'write it as browsers send it: "https://app.example" or "http://localhost:8080"'


def admit_ws_path(path: str | None) -> str | None:
    """Admits the path of a WebSocket as it stands in the first line of HTTP, without a query."""
    if path is not None and (len(path) > PATH_CHARACTERS_MAX or not _PATH.match(path)):
        raise PydanticCustomError(
            "ws_path", "expected a path that begins with a slash", {"hint": f'use "{WS_PATH}"'}
        )
    return path


def admit_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Admits origins, each exactly as a browser sends it: anything else would never match."""
    if len(origins) > ORIGINS_MAX:
        raise PydanticCustomError(
            "origins",
            "expected at most {most} origins",
            {"most": ORIGINS_MAX, "found": len(origins), "hint": "name fewer"},
        )
    for position, origin in enumerate(origins):
        _admit_origin(position, origin)
    return origins


def _admit_origin(position: int, origin: str) -> None:
    found = _ORIGIN.match(origin)
    usual = found is not None and found["port"] == _PORTS[found["scheme"]]
    if found is not None and not usual and 0 < int(found["port"] or 1) <= 65_535:
        return
    hint = _ORIGIN_HINT
    lowered = origin.lower().rstrip("/")
    if origin == "*":
        hint = "leave origins out: where none is named, none is checked"
    elif usual:
        # A browser leaves the usual port out, so that this would never match.
        hint = f'did you mean "{origin.rpartition(":")[0]}"?'
    elif found is None and _ORIGIN.match(lowered):
        hint = f'did you mean "{lowered}"?'
    raise PydanticCustomError(
        "origin", "expected an origin", {"place": (position,), "found": origin, "hint": hint}
    )
