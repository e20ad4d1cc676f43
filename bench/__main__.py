"""`python -m bench`: measures what is asked for, keeps it, and writes the page."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence

from bench import (
    border,
    churn,
    clients,
    durable,
    instructions,
    keepers,
    machine,
    measure,
    overload,
    page,
    peers,
    recovery,
    results,
    retained,
    startup,
)
from bench.cases import cases
from bench.study import Study

# What is measured without another broker: each gives rows of columns of values.
TABLES: dict[str, Callable[[int, Callable[[str], None]], dict[str, dict[str, list[float]]]]] = {
    "border": border.measure,
    "clients": clients.measure,
    "startup": startup.measure,
    instructions.SUITE: instructions.measure,
}

# What takes more than one load at a time, with the brokers that can do it.
STUDIES: dict[
    str, Callable[[Sequence[peers.Peer], measure.Settings, Callable[[str], None]], Study]
] = {
    "overload": overload.overload,
    "slow_reader": overload.slow_reader,
    "retained": retained.measure,
    "churn": churn.measure,
    "durable": durable.measure,
    "recovery": recovery.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; gives its exit code."""
    suites = [*dict.fromkeys(case.suite for case in cases()), *STUDIES, *TABLES]
    names = [peer.name for peer in _known()]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--suites", default=",".join(suites), help="what is measured, by commas")
    parser.add_argument("--peers", default=",".join(names), help="which brokers, by commas")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each broker in each case")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured time of each run")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    options = parser.parse_args(arguments)
    wanted, known = options.suites.split(","), options.peers.split(",")
    for word, allowed in ((wanted, suites), (known, names)):
        if unknown := set(word) - set(allowed):
            parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(allowed)}")
    # Whoever ends it ends its brokers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not options.page:
        settings = measure.Settings(rounds=options.rounds, seconds=options.seconds)
        _measure([suite for suite in wanted if suite not in TABLES], known, settings)
        for suite in (suite for suite in wanted if suite in TABLES):
            _tabulate(suite, options.rounds)
    page.write(results.read())
    for one in page.PAGES:
        _say(f"written: {one.relative_to(machine.ROOT)}")
    return 0


def _known() -> tuple[peers.Peer, ...]:
    return (*peers.PEERS, *keepers.PEERS)


def _is_asked(peer: peers.Peer, suites: list[str]) -> bool:
    """False where it takes part in no suite that is measured, so that it need not be there."""
    return not peer.suites or bool(set(peer.suites) & set(suites))


def _measure(suites: list[str], names: list[str], settings: measure.Settings) -> None:
    """Measures suite by suite, and keeps each as soon as it is done."""
    described: dict[str, dict[str, str]] = {}
    present: list[peers.Peer] = []
    if not suites:
        return
    for peer in _known():
        if peer.name not in names or not _is_asked(peer, suites):
            continue
        _say(f"getting {peer.name}")
        described[peer.name] = {"title": peer.title}
        try:
            described[peer.name]["version"] = peer.get()
            present.append(peer)
        except peers.Missing as reason:
            described[peer.name]["missing"] = str(reason)
            _say(f"missing: {peer.name}: {reason}")
    for suite in suites:
        if suite in STUDIES:
            _study(suite, present, described, settings)
            continue
        measured = [
            (case, measure.measure(present, case, settings, _say))
            for case in cases()
            if case.suite == suite
        ]
        path = results.keep(suite, machine.describe(), settings, described, measured)
        _say(f"kept: {path.name}")


def _study(
    suite: str,
    present: Sequence[peers.Peer],
    described: dict[str, dict[str, str]],
    settings: measure.Settings,
) -> None:
    """Carries out a study, and keeps it with what went wrong."""
    study = STUDIES[suite](present, settings, _say)
    missing = [
        f"{known['title']} is missing: {known['missing']}"
        for known in described.values()
        if "missing" in known
    ]
    about = {
        **machine.describe(),
        "load": machine.load_average(),
        "seconds": settings.seconds,
        "notes": [*missing, *study.notes],
        **study.about,
    }
    path = results.keep_table(suite, about, settings.rounds, study.rows)
    _say(f"kept: {path.name}")


def _tabulate(suite: str, rounds: int) -> None:
    """Measures what needs no other broker, and keeps it; what cannot be counted is said."""
    try:
        found = TABLES[suite](rounds, _say)
    except instructions.Uncounted as reason:
        _say(f"missing: {suite}: {reason}")
        return
    described = {**machine.describe(), "load": machine.load_average()}
    if suite == instructions.SUITE:
        described["toolchain"], rounds = instructions.toolchain(), 1
    _say(f"kept: {results.keep_table(suite, described, rounds, found).name}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of a program.


if __name__ == "__main__":
    sys.exit(main())
