"""Writes what was measured into the pages that show it, between their markers, and draws it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench import durable, keepers, overload, picture
from bench.machine import ROOT
from bench.peers import Peer
from bench.results import Result, Table

PAGE = ROOT / "docs" / "performance.md"
PAGES = (PAGE, ROOT / "docs" / "durability.md")
PICTURES = ROOT / "docs" / "performance"

_BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

# Of issue 6: the highest multiple of the floor, and the least of mosquitto.
GOALS = {
    "50→1 QoS 0": (2.0, 35.0), "50:50 QoS 0": (2.0, 35.0), "1→100 QoS 0": (1.3, 22.0),
    "50→1 QoS 1": (1.3, 22.0), "50:50 QoS 1": (1.3, 22.0), "1→100 QoS 1": (1.3, 17.0),
    "50:50 QoS 2": (None, 20.0),
}  # fmt: skip
MOSQUITTO_US = 9.2
# Tables that are drawn too, and what their pictures show.
CURVES = {"overload": "What is delivered of what is offered, and what a quiet pair feels"}
WAKEUP_GOALS = {"QoS 0": (1.15, 1.5), "QoS 1": (1.4, 1.1)}


def write(
    results: Mapping[str, Result | Table],
    pages: Sequence[Path] = PAGES,
    pictures: Path = PICTURES,
) -> None:
    """Writes each block whose suite was measured, and the pictures."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text, results), encoding="utf-8")
    pictures.mkdir(exist_ok=True)
    for suite, drawn in drawings(results):
        (pictures / f"{suite}.svg").write_text(drawn, encoding="utf-8")


def filled(text: str, results: Mapping[str, Result | Table]) -> str:
    """Gives the page with its blocks written anew."""

    def block(found: re.Match[str]) -> str:
        result = results.get(found[2])
        if result is None:
            return found[0]
        written = table(result) if isinstance(result, Table) else BLOCKS[found[2]](result)
        lines = "\n".join(written)
        return f"{found[1]}{lines}\n{found[3]}"

    return _BLOCK.sub(block, text)


def drawings(results: Mapping[str, Result | Table]) -> Iterator[tuple[str, str]]:
    """Yields the name of each picture and the picture."""
    for suite, title in (
        ("messages", "CPU time of the broker for each delivered message, 64 B"),
        ("sizes", "CPU time of the broker for each delivered message, QoS 0, by payload"),
    ):
        result = results.get(suite)
        if isinstance(result, Result):
            rows = {
                case: {
                    name: median
                    for name in result.shown
                    if (median := result.median(case, name)) is not None
                }
                for case in result.cases
            }
            yield suite, picture.dots(title, "µs", rows, result.shown)
    for suite, title in CURVES.items():
        result = results.get(suite)
        if isinstance(result, Table):
            yield suite, picture.curves(title, _curves(result))


def _curves(result: Table) -> list[picture.Panel]:
    """Gives, by what was offered, what was delivered of the capacity, and the pair's p99."""
    goodput: dict[str, list[tuple[float, float]]] = {}
    p99: dict[str, list[tuple[float, float]]] = {}
    for row, columns in result.rows.items():
        name, _, part = row.rpartition(", ")
        if not part.endswith(" ×"):
            continue
        offered, delivered = columns[overload.OFFER], columns[overload.GOODPUT]
        at = float(part.removesuffix(" ×"))
        if offered and delivered:
            capacity = offered["median"] / at
            goodput.setdefault(name, []).append((at, delivered["median"] / capacity))
        if felt := columns[overload.P99]:
            p99.setdefault(name, []).append((at, felt["median"] / 1_000))
    axis = "offered, in parts of the capacity"
    return [
        picture.Panel("delivered, in parts of the capacity", axis, goodput, logarithmic=False),
        picture.Panel("p99 of the well-behaved pair, ms", axis, p99, logarithmic=True),
    ]


# Blocks


def costs(result: Result) -> Iterator[str]:
    """Yields what a delivery costs each broker, how many there are, and where it was measured."""
    yield from _table(result, "µs of CPU for each delivery", "cost", _cost)
    yield _generator(result)
    yield ""
    yield from _table(result, "deliveries a second", "rate", _rate)
    yield from _notes(result)


def messages(result: Result) -> Iterator[str]:
    """Yields the main comparison, and how it stands to the goals."""
    yield "![CPU time for each delivered message](performance/messages.svg)"
    yield ""
    yield from costs(result)
    yield ""
    yield from _against(result, GOALS)
    needs = result.median("50→1 QoS 0", "mosquitto")
    if needs is not None:
        yield ""
        yield (
            f"The goals against mosquitto were set where it needed {MOSQUITTO_US:g} µs at 50→1 "
            f"QoS 0; here it needs {_cost(needs)} µs, and each goal is as much harder."
        )


def wakeups(result: Result) -> Iterator[str]:
    """Yields the cost of a message that comes alone, and how it stands to the goals."""
    yield from costs(result)
    yield ""
    yield from _against(result, WAKEUP_GOALS)


def shards(result: Result) -> Iterator[str]:
    """Yields what two shards cost, and how that stands to one."""
    yield from costs(result)
    yield ""
    yield "| two shards against one | " + " | ".join(result.cases) + " | goal |"
    yield f"|---|{'---:|' * (len(result.cases) + 1)}"
    ratios = [_times(result.ratio(case, "casemate-2", "casemate")) for case in result.cases]
    yield f"| CPU for each delivery | {' | '.join(ratios)} | ≤ 1.2 × |"


def rules(result: Result) -> Iterator[str]:
    """Yields what a role costs, and how one of many rules stands to one of few."""
    yield from costs(result)
    yield ""
    yield "| 1,000 rules against 20 | " + " | ".join(result.cases) + " |"
    yield f"|---|{'---:|' * len(result.cases)}"
    for name in ("casemate", "mosquitto"):
        ratios = [result.ratio(case, f"{name}-1000", f"{name}-20") for case in result.cases]
        yield f"| {name} | {' | '.join(map(_times, ratios))} |"


def sizes(result: Result) -> Iterator[str]:
    """Yields the cost by payload, drawn and as a table."""
    yield "![CPU time by payload](performance/sizes.svg)"
    yield ""
    yield from costs(result)


def latency(result: Result) -> Iterator[str]:
    """Yields p50, p99, p99.9 and the longest of each broker."""
    columns = [f"{case}: {name}" for case in result.cases for name in ("p50", "p99", "p99.9")]
    yield f"| µs from the intended moment | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for name in result.shown:
        cells = []
        for case in result.cases.values():
            summary = case.get(name)
            values = summary["latency_us"][:3] if summary else []
            mark = _mark(summary["harm"]) if summary else ""
            cells += [f"{value:,.0f}{mark}" for value in values] or ["–"] * 3
        yield f"| {_title(result, name)} | {' | '.join(cells)} |"
    yield from _notes(result)


def connects(result: Result) -> Iterator[str]:
    """Yields what a connection costs, and how many there are."""
    yield from _table(result, "µs of CPU for each connection", "cost", _cost)
    yield ""
    yield from _table(result, "connections a second", "rate", _rate)
    yield from _notes(result)


def idle(result: Result) -> Iterator[str]:
    """Yields the memory of idle connections."""
    yield from _table(result, "bytes of memory for each connection", "cost", _rate)
    yield from _notes(result)


def table(result: Table) -> Iterator[str]:
    """Yields rows of columns, where they were measured, and what went wrong."""
    if result.suite in CURVES:
        yield f"![{CURVES[result.suite]}](performance/{result.suite}.svg)"
        yield ""
    columns = list(next(iter(result.rows.values()), {}))
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for row, values in result.rows.items():
        cells = [_spread(values[column], _figure) for column in columns]
        name = f"**{row}**" if row.partition(",")[0] == "casemate" else row
        yield f"| {name} | {' | '.join(cells)} |"
    machine = result.machine
    yield ""
    if "toolchain" in machine:
        yield f"*{_where(machine)}; {', '.join(machine['toolchain'].values())}.*"
        return
    yield (
        f"*{_where(machine)}; Python {machine['python']}; {result.rounds} rounds"
        f"{' of {:g} s'.format(machine['seconds']) if 'seconds' in machine else ''}, interleaved; "
        f"median (least–most); load average {machine['load']:.1f}"
        f"{'; data on {}'.format(machine['disk']) if 'disk' in machine else ''}.*"
    )
    if result.suite == "durable":
        yield from _kept(result)
    for note in machine.get("notes", ()):
        yield ""
        yield f"*{note}.*"


BLOCKS: Mapping[str, Callable[[Result], Iterator[str]]] = {
    "messages": messages, "wakeups": wakeups, "shards": shards, "wide": costs, "sizes": sizes,
    "modern": costs, "subscriptions": costs, "rules": rules, "latency": latency, "secure": costs,
    "connects": connects, "idle": idle,
}  # fmt: skip


# Inside


def _kept(result: Table) -> Iterator[str]:
    """Yields how keeping messages stands to its goals, and what each broker promises for it."""

    def median(peer: Peer, case: str, column: str) -> float | None:
        found = result.rows.get(f"{peer.title}, {case}", {}).get(column)
        return found["median"] if found else None

    def ratio(of: float | None, to: float | None) -> float | None:
        return of / to if of and to else None

    yield ""
    yield "| durability disk, 1,000 outstanding | QoS 1 | goal | QoS 2 |"
    yield "|---|---:|---:|---:|"
    cases = durable.MANY_NAMES
    rates = [median(keepers.DISK, case, durable.RATE) for case in cases]
    costs_us = [median(keepers.DISK, case, durable.COST) for case in cases]
    in_memory = [median(keepers.MEMORY, case, durable.COST) for case in cases]
    others = [median(keepers.MOSQUITTO, case, durable.RATE) for case in cases]
    for words, goal, (first, second) in (
        ("delivered a second", "≥ 400,000", ["–" if one is None else _rate(one) for one in rates]),
        (
            "against mosquitto in memory",
            "≥ 10 ×",
            [_times(ratio(*pair)) for pair in zip(rates, others, strict=True)],
        ),
        (
            "CPU against durability memory",
            "≤ 1.5 ×",
            [_times(ratio(*pair)) for pair in zip(costs_us, in_memory, strict=True)],
        ),
    ):
        yield f"| {words} | {first} | {goal} | {second} |"
    yield ""
    yield "| | what it promises |"
    yield "|---|---|"
    for peer in keepers.PEERS:
        yield f"| {peer.title} | {keepers.PROMISES[peer.name]} |"


def _title(result: Result, name: str) -> str:
    known = result.peers[name]
    version = known.get("version", "")
    shown = f"{known['title']} {version}" if version[:1].isdigit() else known["title"]
    return f"**{shown}**" if name == "casemate" else shown


def _table(result: Result, corner: str, figure: str, show: Callable[[float], str]) -> Iterator[str]:
    yield f"| {corner} | {' | '.join(result.cases)} |"
    yield f"|---|{'---:|' * len(result.cases)}"
    for name in result.shown:
        cells = [_cell(case.get(name), figure, show) for case in result.cases.values()]
        yield f"| {_title(result, name)} | {' | '.join(cells)} |"


def _generator(result: Result) -> str:
    """Gives what the generator itself cost while it loaded ours: it must not be the bottleneck."""
    medians = [result.median(case, "casemate", "generator_cost") for case in result.cases]
    cells = ["–" if median is None else _cost(median) for median in medians]
    return f"| *the generator, loading casemate* | {' | '.join(cells)} |"


def _cell(summary: Mapping[str, object] | None, figure: str, show: Callable[[float], str]) -> str:
    if summary is None:
        return "–"
    spread = summary[figure]
    if not isinstance(spread, dict):
        return "failed"
    harm = summary["harm"]
    return _spread(spread, show) + _mark(harm if isinstance(harm, dict) else {})


def _spread(spread: Mapping[str, float] | None, show: Callable[[float], str]) -> str:
    if spread is None:
        return "–"
    median, least, most = (show(spread[key]) for key in ("median", "least", "most"))
    return median if least == most else f"{median} ({least}–{most})"


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _where(machine: Mapping[str, object]) -> str:
    return (
        f"{machine['at']}, commit {machine['commit']}"
        f"{' with changes' if machine['changed'] else ''}, {machine['processor']}, "
        f"{machine['cores']} cores{'' if machine['pinned'] else ', not pinned'}, "
        f"{machine['system']}"
    )


def _mark(harm: Mapping[str, int]) -> str:
    return " †" if harm else ""


def _cost(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}"


def _against(result: Result, goals: Mapping[str, tuple[float | None, float]]) -> Iterator[str]:
    """Yields how ours stands to the floor and to mosquitto in the same run."""
    yield "| casemate against | floor | goal | mosquitto | goal |"
    yield "|---|---:|---:|---:|---:|"
    for case, (most, least) in goals.items():
        floor = result.ratio(case, "casemate", "floor")
        mosquitto = result.ratio(case, "mosquitto", "casemate")
        yield (
            f"| {case} | {_times(floor)} | {'–' if most is None else f'≤ {most:g} ×'} "
            f"| {_times(mosquitto)} cheaper | ≥ {least:g} × |"
        )


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f} ×" if ratio < 10 else f"{ratio:.0f} ×"


def _notes(result: Result) -> Iterator[str]:
    """Yields where and how it was measured, who is missing, and what went wrong."""
    machine, settings = result.machine, result.settings
    loads = result.loads
    yield ""
    yield (
        f"*{_where(machine)}; {settings['rounds']} rounds of {settings['seconds']:g} s, "
        "interleaved; median (least–most)"
        + (f"; load average {loads[0]:.1f}–{loads[1]:.1f}" if loads else "")
        + ".*"
    )
    for name, known in result.peers.items():
        if "missing" in known:
            yield ""
            yield f"*{known['title']} is missing: {known['missing']}.*"
        for case, found in result.cases.items():
            summary = found.get(name)
            if summary is None:
                continue
            if summary["harm"]:
                words = ", ".join(
                    f"{key.replace('_', ' ')} {count:,}" for key, count in summary["harm"].items()
                )
                yield ""
                yield f"*† {known['title']}, {case}: {words}.*"
            for fault in dict.fromkeys(summary["faults"]):
                yield ""
                yield f"*{known['title']}, {case}: {fault}.*"
