"""Runs what takes more than one load at a time: interleaved, repeated, each against a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.measure import Settings
from bench.peers import Missing, Peer

# Row, column, and one value for each run.
Rows = dict[str, dict[str, list[float]]]

# What a run has found, by column; a column without a value there is left out.
Found = Mapping[str, float]


@dataclass
class Study:
    """Collects runs, carries them out round by round, and holds what they have found.

    Attributes:
        suite: Its name.
        columns: Of its table.
        settings: How much is measured.
        say: Is told of each run, in a line.
        rows: What was found.
        notes: What went wrong, in words.
        about: What else a reader must know, by name; kept with the machine.
    """

    suite: str
    columns: Sequence[str]
    settings: Settings
    say: Callable[[str], None]
    rows: Rows = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    _runs: list[tuple[str, Callable[[], Found]]] = field(default_factory=list)

    def add(self, row: str, once: Callable[[], Found]) -> None:
        """Adds a row, and what finds it once."""
        self.rows[row] = {column: [] for column in self.columns}
        self._runs.append((row, once))

    def carry_out(self) -> None:
        """Runs all of it; between two runs of one row all others have theirs."""
        for number in range(self.settings.rounds):
            for row, once in self._runs:
                with self.careful(row):
                    found = once()
                    for column, value in found.items():
                        self.rows[row][column].append(value)
                    words = ", ".join(f"{column} {value:,g}" for column, value in found.items())
                    self.say(f"{self.suite} {row}, round {number + 1}: {words}")

    @contextmanager
    def careful(self, row: str) -> Iterator[None]:
        """Notes what goes wrong inside, and goes on."""
        try:
            yield
        except (Missing, RuntimeError) as error:
            self.note(row, str(error))

    def note(self, row: str, words: str) -> None:
        """Notes what goes wrong, once for all rounds."""
        note = f"{row}: {words}"
        self.say(f"{self.suite} {note}")
        if note not in self.notes:
            self.notes.append(note)

    def longer(self, peer: Peer) -> Settings:
        """Gives the times for a broker."""
        return self.settings.stretched(peer.stretch)
