"""Pictures without a library: dots of brokers on a logarithmic axis, and curves of what grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle

WIDTH = 860
LEFT = 150
RIGHT = 24
ROW = 30
TOP = 74
BOTTOM = 44

# Told apart by people who see no red or no green (Okabe and Ito), ours in black.
COLOURS = ("#999999", "#000000", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")

PANEL = 360
GAP = 52
PANEL_HEIGHT = 260

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Is one of the charts of a picture.

    Attributes:
        title: What goes up.
        axis: What goes to the right, from 0.
        lines: Name of each curve and its points, all of them 0 or above.
        logarithmic: Go up by powers of ten; points at 0 are left out then.
    """

    title: str
    axis: str
    lines: Mapping[str, Points]
    logarithmic: bool


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


def curves(title: str, panels: Sequence[Panel]) -> str:
    """Draws charts side by side; a curve has the same colour in each.

    Args:
        title: Of the picture.
        panels: The charts.

    Returns:
        An SVG, as `dots`.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    height = TOP + PANEL_HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_legend(names, COLOURS[1:]),
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, GAP + index * (PANEL + GAP), names)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, names: Sequence[str]) -> list[str]:
    floor = TOP + PANEL_HEIGHT
    points = [point for line in panel.lines.values() for point in line]
    widest = max((x for x, _ in points), default=0) or 1.0
    low, high, ticks = _scale([y for _, y in points], logarithmic=panel.logarithmic)

    def across(x: float) -> float:
        return left + x / widest * PANEL

    def up(y: float) -> float:
        value = math.log10(y) if panel.logarithmic else y
        return floor - (value - low) / (high - low) * (PANEL_HEIGHT - 24)

    parts = [f'<text x="{left:.0f}" y="{TOP + 8}" font-weight="bold">{escape(panel.title)}</text>']
    for tick in ticks:
        y = up(tick)
        parts.append(
            f'<line x1="{left:.0f}" x2="{left + PANEL:.0f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="#dddddd"/><text x="{left - 6:.0f}" y="{y + 4:.1f}" text-anchor="end">'
            f"{tick:g}</text>"
        )
    for tick in range(math.floor(widest) + 1):
        x = across(tick)
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{tick}</text>')
    parts.append(
        f'<text x="{left + PANEL:.0f}" y="{floor + 34}" text-anchor="end">'
        f"{escape(panel.axis)}</text>"
    )
    for name, colour in zip(names, cycle(COLOURS[1:]), strict=False):
        line = [(x, y) for x, y in panel.lines.get(name, ()) if y > 0 or not panel.logarithmic]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="4" fill="{colour}">'
            f"<title>{escape(name)}: {y:.3g} at {x:g}</title></circle>"
            for x, y in line
        ]
    return parts


def _scale(values: Sequence[float], *, logarithmic: bool) -> tuple[float, float, list[float]]:
    """Gives the lowest and the highest place of an axis, and the values at its lines."""
    if logarithmic:
        low, high = _decades([value for value in values if value > 0])
        return low, high, [10.0**power for power in range(low, high + 1)]
    most = max(values, default=0) or 1.0
    step = 10.0 ** math.floor(math.log10(most))
    step = next(part * step for part in (0.2, 0.5, 1.0, 2.0) if most <= 6 * part * step)
    count = math.ceil(most / step)
    return 0.0, count * step, [number * step for number in range(count + 1)]


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


def _legend(names: Sequence[str], colours: Sequence[str] = COLOURS) -> list[str]:
    parts, x = [], 18.0
    for name, colour in zip(names, cycle(colours), strict=False):
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
