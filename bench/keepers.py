"""The brokers that keep messages on a disk, and what each really promises with its PUBACK.

All have their data on the same disk. Ours serves a home, with everything on that a home has; what
the others are told is in their commands here.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import disk, machine, peers
from bench.peers import Peer, Reach
from casemate import Broker, config, files, identity
from casemate.identity import Accounts
from casemate.lab import ARGON2_MEMORY_KIB, ARGON2_TIME, Lab, LabOptions
from casemate.passwords import PasswordCost, generate_password

SUITES = ("durable", "recovery")

# As a hundred clients of a run connect at a time.
_CHEAP = PasswordCost(time=ARGON2_TIME, memory_kib=ARGON2_MEMORY_KIB)
# What a run of the comparison keeps in the broker at a time.
_LIMITS = {
    "connections_max": 50_000,
    "sessions_max": 200_000,
    "queue_messages_max": 2_000_000,
    "queue_bytes_max": 4 * 1024 * 1024 * 1024,
}


@dataclass(frozen=True)
class House:
    """Is a home with its configuration, to be served more than once.

    Attributes:
        folder: What holds it.
        port: Of plaintext MQTT on loopback.
        proofs: Password of each user.
    """

    folder: Path
    port: int
    proofs: Mapping[str, str]

    @property
    def home(self) -> Path:
        """The home itself."""
        return self.folder / "lab" / "home"

    def words(self, user: str = "some") -> tuple[str, ...]:
        """Gives the options of `casemate bench` with which a user reaches it."""
        proof = ("-u", user, "-P", self.proofs[user], "-t", f"users/{user}/bench")
        return (*proof, *peers.plain(self.port))

    @contextmanager
    def run(self) -> Iterator[subprocess.Popen[bytes]]:
        """Runs `casemate run` and does not wait for it; ends it."""
        program = str(Path(sys.executable).with_name("casemate"))
        with self._run([program, "run", "--home", str(self.home)]) as process:
            yield process

    @contextmanager
    def _run(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as said, peers.ended(command, said, machine.ROOT) as process:
            yield process

    @contextmanager
    def served(self) -> Iterator[Reach]:
        """Serves it with passwords that are cheap to check, as a run has a hundred at a time.

        Raises:
            bench.peers.Missing: It does not start.
        """
        command = [sys.executable, "-m", "bench.keepers", str(self.home)]
        with self._run(command) as process:
            peers.await_port(process, self.port, self.log)
            yield Reach(process.pid, self.words(), self.port, self.proofs)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log"


@dataclass(frozen=True)
class OurKeeper(Peer):
    """Is a broker with a home: its user proves itself by password and has one rule.

    Attributes:
        durability: As `store.durability` of the configuration.
    """

    durability: str = "disk"

    @contextmanager
    def built(self, more: Sequence[str] = ()) -> Iterator[House]:
        """Makes a home with the users of a lab and some more like `some`, and removes it."""
        with self.folder() as folder:
            with Lab(LabOptions(data=folder / "lab")) as lab:
                proofs = dict(lab.ready()["users"])
            place = folder / "lab" / "home" / identity.FILE_NAME
            with Accounts(place, cost=_CHEAP) as accounts:
                for name in more:
                    proofs[name] = generate_password(name)
                    accounts.add(name, "user", ["some"], proofs[name])
            house = House(folder, peers.free_port(), proofs)
            limits = "".join(f"{name} = {value}\n" for name, value in _LIMITS.items())
            text = (
                "shards = 1\n"
                f'[[listeners]]\nkind = "tcp"\nhost = "127.0.0.1"\nport = {house.port}\n'
                f'[store]\ndurability = "{self.durability}"\n[limits]\n{limits}'
            )
            files.write_whole(house.home / config.FILE_NAME, text.encode(), files.PRIVATE_MODE)
            yield house

    @contextmanager
    def serving(self, transport: str = "tcp") -> Iterator[Reach]:
        """Starts it; otherwise as `Peer.serving`."""
        with self.built() as house, house.served() as reach:
            yield reach


def _ours(durability: str) -> OurKeeper:
    return OurKeeper(
        f"casemate-{durability}",
        f"casemate, durability {durability}",
        peers.get_ours,
        lambda *_: [],
        suites=SUITES,
        place=disk.PLACE,
        durability=durability,
    )


def _mosquitto(name: str, title: str, kept: str) -> Peer:
    def command(port: int, folder: Path) -> list[str]:
        return peers.mosquitto(port, folder, kept.format(folder=folder))

    return Peer(name, title, peers.get_mosquitto, command, suites=SUITES, place=disk.PLACE)


def _nats(port: int, folder: Path) -> list[str]:
    return peers.nats(port, folder, ", sync_interval: always")


_SAVED = "persistence true\npersistence_location {folder}/\nautosave_interval 1\n"

DISK, SYSTEM, MEMORY = _ours("disk"), _ours("os"), _ours("memory")
MOSQUITTO = _mosquitto("mosquitto-memory", "mosquitto, in memory", "persistence false\n")
PEERS = (
    DISK,
    SYSTEM,
    MEMORY,
    MOSQUITTO,
    _mosquitto("mosquitto-second", "mosquitto, saved each second", _SAVED),
    _mosquitto(
        "mosquitto-change",
        "mosquitto, saved at each change",
        f"{_SAVED}autosave_on_changes true\n",
    ),
    Peer(
        "nats-always",
        "nats-server, sync_interval always",
        peers.get_nats,
        _nats,
        versions=(4,),
        suites=SUITES,
        place=disk.PLACE,
        # It needs seconds until the first message comes.
        stretch=5.0,
    ),
)

# By the documentation of each, read with its setting here.
PROMISES = {
    "casemate-disk": (
        "PUBACK and PUBREC leave when the disk has said that the message and whom it is for are "
        "safe: nothing acknowledged is lost by `kill -9` or loss of power"
    ),
    "casemate-os": (
        "they leave when the operating system has it: nothing is lost by `kill -9`, the last "
        "seconds by loss of power"
    ),
    "casemate-memory": "nothing is written: everything is lost with the process",
    "mosquitto-memory": "nothing is written: everything is lost with the process",
    "mosquitto-second": (
        "`autosave_interval 1`: the whole store is written anew at most once a second, and PUBACK "
        "does not wait for it: up to a second of what was acknowledged is lost by `kill -9`"
    ),
    "mosquitto-change": (
        "`autosave_on_changes true` with a count of 1: the whole store is written anew after "
        "changes, by the main loop; PUBACK does not wait for it either"
    ),
    "nats-always": (
        "`sync_interval: always`: PUBACK leaves when the message is in its stream and the stream's "
        "file is synced: nothing acknowledged is lost"
    ),
}


def named(names: list[str]) -> list[Peer]:
    """Gives those of these names, in the order of their table."""
    return [peer for peer in PEERS if peer.name in names]


@contextlib.contextmanager
def on_disk() -> Iterator[str]:
    """Gives the file system of the data, and removes the folder for it if nothing is left there."""
    try:
        yield disk.file_system()
    finally:
        with contextlib.suppress(OSError):
            disk.PLACE.rmdir()


def main() -> int:
    """Serves the home that is named, until it is asked to end."""
    asked = {signal.SIGTERM, signal.SIGINT}
    # Before there are threads, so that none of them takes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    with Broker(Path(sys.argv[1]), password_cost=_CHEAP):
        signal.sigwait(asked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
