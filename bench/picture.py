"""Pictures without a library: a row for each case, a dot for each broker, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 860
LEFT = 150
RIGHT = 24
ROW = 30
TOP = 74
BOTTOM = 44

# Told apart by people who see no red or no green (Okabe and Ito), ours in black.
COLOURS = ("#999999", "#000000", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")


def dots(
    title: str,
    unit: str,
    rows: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
) -> str:
    """Draws values of several brokers in several cases.

    Args:
        title: Of the picture.
        unit: Of the values, under the axis.
        rows: Case and, for each broker that has one, a value above 0.
        names: Brokers in the order of their colours.

    Returns:
        An SVG, which needs no fonts and no scripts of its own.
    """
    values = [value for row in rows.values() for value in row.values() if value > 0]
    low, high = _decades(values)
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_legend(names),
        *_axis(low, high, height, unit),
    ]
    for index, (case, row) in enumerate(rows.items()):
        y = TOP + ROW * index + ROW / 2
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(case)}</text>'
        )
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.0f}" y2="{y:.0f}" stroke="#eeeeee"/>'
        )
        for name, colour in zip(names, COLOURS, strict=False):
            value = row.get(name)
            if value is not None and value > 0:
                parts.append(
                    f'<circle cx="{_place(value, low, high):.1f}" cy="{y:.0f}" r="6" '
                    f'fill="{colour}" fill-opacity="0.85">'
                    f"<title>{escape(name)}: {value:g} {escape(unit)}</title></circle>"
                )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Gives the powers of ten around all values."""
    if not values:
        return 0, 1
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _place(value: float, low: int, high: int) -> float:
    part = (math.log10(value) - low) / (high - low)
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], 18.0
    for name, colour in zip(names, COLOURS, strict=False):
        parts.append(f'<circle cx="{x:.0f}" cy="46" r="6" fill="{colour}" fill-opacity="0.85"/>')
        parts.append(f'<text x="{x + 11:.0f}" y="50">{escape(name)}</text>')
        x += 30 + 7 * len(name)
    return parts


def _axis(low: int, high: int, height: int, unit: str) -> list[str]:
    parts = []
    for power in range(low, high + 1):
        x = _place(10.0**power, low, high)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="#cccccc"/>'
        )
        parts.append(
            f'<text x="{x:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">'
            f"{10.0**power:g}</text>"
        )
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{height - 10}" text-anchor="end">{escape(unit)}</text>'
    )
    return parts
