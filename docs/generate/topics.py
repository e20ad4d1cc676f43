"""Every topic under `$SYS`: what a real broker announces, with the meaning that the guide gives."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

from casemate import Broker

GUIDE = Path(__file__).resolve().parents[1] / "guides/status.md"

_ROW = re.compile(r"^\| `(\$SYS/[^`]+)` \| (.*) \|$", re.MULTILINE)
_WINDOW = re.compile(r"/(?:1|5|15)min$")
_CLOCK = "$SYS/broker/uptime"
_LATER = 2
"""Announcements to wait for: by then all that is retained has been replayed."""

_PATIENCE_S = 30.0


def text() -> str:
    """Gives the page's table.

    Raises:
        ValueError: The broker and the guide do not name the same topics.
    """
    return "\n".join(["| topic | first value | meaning |", "|---|---|---|", *_rows(), ""])


async def announced() -> dict[str, str]:
    """Gives topic and first value of all that a new broker announces."""
    said: dict[str, str] = {}
    heard = 0
    async with (
        Broker(sys_interval_s=1) as broker,
        asyncio.timeout(_PATIENCE_S),
        broker.subscriber("$SYS/#") as subscriber,
    ):
        async for message in subscriber:
            said.setdefault(message.topic, message.payload.decode())
            heard += message.topic == _CLOCK and not message.retain
            if heard == _LATER:
                break
    return said


def explained() -> dict[str, str]:
    """Gives what the guide says about each topic."""
    return dict(_ROW.findall(GUIDE.read_text(encoding="utf-8")))


def _rows() -> Iterator[str]:
    said, meanings = asyncio.run(announced()), explained()
    known = {topic: _WINDOW.sub("/1min", topic) for topic in said}
    odd = sorted(set(known.values()) ^ set(meanings))
    if odd:
        raise ValueError(f"the broker and {GUIDE.name} do not name the same topics: {odd}")
    # In the guide's order: a meaning may speak of the line before.
    for topic, meaning in meanings.items():
        if topic in said and _WINDOW.search(topic) is None:
            yield f"| `{topic}` | {said[topic]} | {meaning} |"
            continue
        for minutes in (1, 5, 15):
            one = _WINDOW.sub(f"/{minutes}min", topic)
            yield f"| `{one}` | {said[one]} | {meaning} per minute, over {minutes} min |"
