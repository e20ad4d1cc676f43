"""The brokers that are compared: how each is got, started fresh and reached.

A peer that cannot be built on a machine is listed with its reason; it is never just left out.
Each runs with its own defaults but for what would otherwise lose messages of a run that keeps 4,000
of them under way; nobody else's peers are asked for passwords or rules, ours always are.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.machine import BROKER_CORE, ROOT, on_core
from casemate import files, policy
from casemate.lab import Lab, LabOptions

CACHE = ROOT / "target" / "bench" / "peers"
RECIPES = Path(__file__).parent / "recipes"

BUILD_S_MAX = 3_600
START_S_MAX = 30
STOP_S_MAX = 10

MOCHI = "v2.7.9"
NATS = "v2.15.2"
RMQTT = "0.24.0"
RUMQTTD = "0.20.0"
AMQTT = "0.12.1"

# Rules that a role has in the comparison of few with many.
RULES = (20, 1_000)
# Of the user of a peer that asks for one; thrown away with this process.
PASSWORD = secrets.token_hex(16)


class Missing(Exception):
    """Says why a peer cannot be measured on this machine, in one sentence."""


@dataclass(frozen=True)
class Reach:
    """Says how a running broker is reached.

    Attributes:
        pid: Of its process.
        words: Options of `casemate bench`, without those that say what is done.
        port: Of plaintext MQTT on loopback; 0 where it is reached over something else.
        proofs: Password of each user that it knows; empty where it takes anybody.
    """

    pid: int
    words: tuple[str, ...]
    port: int = 0
    proofs: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Peer:
    """Is one broker of the comparison.

    Attributes:
        name: For the command line and the results.
        title: For people.
        get: Builds or finds it; gives its version, or raises `Missing`.
        command: What starts it, given a port on loopback and an empty folder.
        qos_max: The highest QoS that it does.
        transports: What it is started with here.
        versions: Versions of MQTT, by their numbers on the wire.
        suites: The only ones that it is measured in; empty means all.
        stretch: How much longer it is measured: one that takes a second for what is under way at a
            time would be seen taking messages in and not yet handing them out.
        place: Folder that its own is made in; None: that for temporary files.
    """

    name: str
    title: str
    get: Callable[[], str]
    command: Callable[[int, Path], list[str]]
    qos_max: int = 2
    transports: tuple[str, ...] = ("tcp",)
    versions: tuple[int, ...] = (4, 5)
    suites: tuple[str, ...] = ()
    stretch: float = 1.0
    place: Path | None = None

    @contextmanager
    def serving(self, transport: str = "tcp") -> Iterator[Reach]:
        """Starts it fresh on a free port and a core of its own, and ends it.

        Raises:
            Missing: It does not start.
        """
        with self.folder() as folder:
            port = free_port()
            log = folder / "log"
            with (
                log.open("wb") as said,
                ended(self.command(port, folder), said, folder) as process,
            ):
                await_port(process, port, log)
                yield Reach(process.pid, plain(port), port)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Gives an empty folder, and removes it with all that is in it."""
        if self.place is not None:
            self.place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="casemate-bench-", dir=self.place) as name:
            yield Path(name)


def plain(port: int) -> tuple[str, ...]:
    """Gives the options that reach a port on loopback in plaintext."""
    return ("-h", "127.0.0.1", "-p", str(port), "--insecure-plaintext")


@dataclass(frozen=True)
class Ours(Peer):
    """Is the broker of this tree, with all that it has switched on: `casemate lab`.

    Its user proves itself by password, its rule is a template on its own name, limits and metrics
    are on. Nothing of that can be switched off.
    """

    @contextmanager
    def serving(self, transport: str = "tcp") -> Iterator[Reach]:
        """Starts it; otherwise as `Peer.serving`."""
        with tempfile.TemporaryDirectory(prefix="casemate-bench-") as folder:
            log = Path(folder) / "log"
            with (
                log.open("wb") as said,
                ended(self.command(0, Path(folder)), said, Path(folder), output=True) as process,
            ):
                line = process.stdout.readline() if process.stdout else b""
                if not line:
                    raise Missing(f"it does not start: {_last_words(log)}")
                ready = json.loads(line)
                words = self._words(ready, transport)
                yield Reach(process.pid, words, ready["port"], ready["users"])

    def _words(self, ready: dict[str, Any], transport: str) -> tuple[str, ...]:
        user = ("-u", "some", "-P", ready["users"]["some"], "-t", "users/some/bench")
        trust = ("--cafile", ready["ca_file"])
        tls = ("-h", "127.0.0.1", "-p", str(ready["tls_port"]))
        wss = ("-L", f"wss://127.0.0.1:{ready['wss_port']}{ready['ws_path']}")
        if transport == "mtls":
            proof = ("--cert", ready["client_cert"], "--key", ready["client_key"])
            return ("-h", "127.0.0.1", "-p", str(ready["mtls_port"]), *trust, *proof)
        own = {"tcp": plain(ready["port"]), "tls": (*tls, *trust), "wss": (*wss, *trust)}
        return (*user, *own[transport])


@dataclass(frozen=True)
class WithCertificate(Peer):
    """Is a peer that speaks TLS with a certificate made for the run.

    Attributes:
        secure: What starts it then, given port, folder and a PEM file with key and chain.
    """

    secure: Callable[[int, Path, Path], list[str]] | None = None

    @contextmanager
    def serving(self, transport: str = "tcp") -> Iterator[Reach]:
        """Starts it; otherwise as `Peer.serving`."""
        if transport == "tcp" or self.secure is None:
            with super().serving(transport) as reach:
                yield reach
            return
        import trustme

        with tempfile.TemporaryDirectory(prefix="casemate-bench-") as name:
            folder, port = Path(name), free_port()
            authority = trustme.CA()
            authority.cert_pem.write_to_path(folder / "ca.crt")
            own = authority.issue_cert("127.0.0.1")
            own.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
            command, log = self.secure(port, folder, folder / "server.pem"), folder / "log"
            with log.open("wb") as said, ended(command, said, folder) as process:
                await_port(process, port, log)
                trust = ("--cafile", str(folder / "ca.crt"))
                yield Reach(process.pid, ("-h", "127.0.0.1", "-p", str(port), *trust))


@dataclass(frozen=True)
class WithPassword(Peer):
    """Is a peer whose user `some` proves itself by password and may use its own topics."""

    @contextmanager
    def serving(self, transport: str = "tcp") -> Iterator[Reach]:
        """Starts it; otherwise as `Peer.serving`."""
        with super().serving(transport) as reach:
            user = ("-u", "some", "-P", PASSWORD, "-t", "users/some/bench")
            yield Reach(reach.pid, (*user, *reach.words), reach.port, {"some": PASSWORD})


def _casemate(shards: int) -> Callable[[int, Path], list[str]]:
    program = str(Path(sys.executable).with_name("casemate"))

    def command(_: int, folder: Path) -> list[str]:
        said = ("--set", "sys_interval_s=1")
        return [program, "lab", "--shards", str(shards), *said, "--data", str(folder / "lab")]

    return command


def _governed(rules: int) -> Callable[[int, Path], list[str]]:
    """Gives what starts ours with a role of so many rules, the last of which is the one at work."""

    def command(port: int, folder: Path) -> list[str]:
        # A lab keeps the home that it has made, and what its owner has written there.
        with Lab(LabOptions(data=folder / "lab")):
            pass
        place = folder / "lab" / "home" / policy.FILE_NAME
        files.write_whole(place, policy_of(rules).encode(), files.PRIVATE_MODE)
        return _casemate(1)(port, folder)

    return command


def policy_of(rules: int) -> str:
    """Gives a policy whose role `some` has so many rules with templates, 1 to 1,000."""
    words = {
        "write": '{{ publish = "{}" }}',
        "read": '{{ subscribe = "{}" }}',
        "readwrite": '{{ both = "{}", retain = true }}',
    }
    own = ",\n    ".join(words[what].format(topic) for what, topic in _rules(rules))
    everything = '[{ both = "#", retain = true }, { subscribe = "$SYS/#" }]'
    whole = "".join(f"[roles.{name}]\nallow = {everything}\n" for name in ("all", "operator"))
    return f"{whole}[roles.some]\nallow = [\n    {own},\n]\n"


def _rules(count: int) -> Iterator[tuple[str, str]]:
    """Yields what so many rules allow, and where; all have a template, and the last applies."""
    kinds = (
        ("write", "rooms/{}/+/%u"),
        ("read", "rooms/{}/%c/#"),
        ("readwrite", "users/%u/room-{}/+/state"),
    )
    for number in range(count - 1):
        what, topic = kinds[number % len(kinds)]
        yield what, topic.format(number)
    yield "readwrite", "users/%u/#"


def get_ours() -> str:
    """Finds ours; otherwise as all of `get`."""
    program = Path(sys.executable).with_name("casemate")
    if not program.exists():
        raise Missing("the tree is not built: make setup")
    return _said([str(program), "--version"]).removeprefix("casemate ")


def _get_floor() -> str:
    _build(["cargo", "build", "--release", "--quiet", "-p", "casemate-load", "--example", "floor"])
    return "of this tree"


def _floor(port: int, _: Path) -> list[str]:
    return [str(ROOT / "target" / "release" / "examples" / "floor"), str(port)]


def _floor_tls(port: int, folder: Path, own: Path) -> list[str]:
    return [*_floor(port, folder), str(own)]


def get_mosquitto() -> str:
    """Finds Debian's mosquitto; otherwise as all of `get`."""
    _require("mosquitto", "apt-get install mosquitto")
    # Its help is where it says its version, and it ends with 3 for having been asked.
    return _said(["mosquitto", "-h"]).split()[2]


def mosquitto(port: int, folder: Path, kept: str = "persistence false\n") -> list[str]:
    """Gives what starts it; `kept` are the lines that say what it writes to the disk."""
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\n{kept}user root\n"
        "set_tcp_nodelay true\nmax_queued_messages 100000\nsys_interval 1\nlog_type error\n",
        encoding="utf-8",
    )
    return ["mosquitto", "-c", str(folder / "mosquitto.conf")]


def _mosquitto_tls(port: int, folder: Path, own: Path) -> list[str]:
    command = mosquitto(port, folder)
    with (folder / "mosquitto.conf").open("a", encoding="utf-8") as file:
        file.write(f"certfile {own}\nkeyfile {own}\n")
    return command


def _mosquitto_patterns(rules: int) -> Callable[[int, Path], list[str]]:
    """Gives what starts it with a password and so many patterns, the last of which applies."""

    def command(port: int, folder: Path) -> list[str]:
        started = mosquitto(port, folder)
        patterns = "".join(f"pattern {what} {topic}\n" for what, topic in _rules(rules))
        (folder / "acl").write_text(patterns, encoding="utf-8")
        secrets_file = folder / "passwords"
        secrets_file.touch(files.PRIVATE_MODE)
        secrets_file.write_text(f"some:{PASSWORD}\n", encoding="utf-8")
        # Hashes what stands there.
        _build(["mosquitto_passwd", "-U", str(secrets_file)])
        with (folder / "mosquitto.conf").open("a", encoding="utf-8") as file:
            file.write(f"acl_file {folder / 'acl'}\npassword_file {secrets_file}\n")
        return started

    return command


def _get_mochi() -> str:
    _require("go", "go.dev/dl")
    program = CACHE / "mochi" / "mochi"
    _build(["go", "build", "-o", str(program), "."], folder=RECIPES / "mochi")
    return MOCHI.removeprefix("v")


def _mochi(port: int, _: Path) -> list[str]:
    return [str(CACHE / "mochi" / "mochi"), str(port)]


def get_nats() -> str:
    """Builds nats-server; otherwise as all of `get`."""
    _require("go", "go.dev/dl")
    if not (CACHE / "nats" / "nats-server").exists():
        place = {"GOBIN": str(CACHE / "nats")}
        _build(["go", "install", f"github.com/nats-io/nats-server/v2@{NATS}"], place)
    return NATS.removeprefix("v")


def nats(port: int, folder: Path, kept: str = "") -> list[str]:
    """Gives what starts it; `kept` says more of what it writes to the disk."""
    # MQTT of nats-server stores sessions in JetStream, so that it cannot do without.
    (folder / "nats.conf").write_text(
        f'server_name: bench\nlisten: "127.0.0.1:{free_port()}"\n'
        f'jetstream {{ store_dir: "{folder / "store"}"{kept} }}\n'
        f'mqtt {{ listen: "127.0.0.1:{port}", max_ack_pending: 65535 }}\n',
        encoding="utf-8",
    )
    return [str(CACHE / "nats" / "nats-server"), "-c", str(folder / "nats.conf")]


def _get_rumqttd() -> str:
    if not (CACHE / "rumqttd" / "bin" / "rumqttd").exists():
        place = ["--root", str(CACHE / "rumqttd"), "--version", RUMQTTD]
        target = {"CARGO_TARGET_DIR": str(CACHE / "build")}
        _build(["cargo", "install", "--quiet", "rumqttd", *place], target)
    return RUMQTTD


def _rumqttd(port: int, folder: Path) -> list[str]:
    (folder / "rumqttd.toml").write_text(
        "id = 0\n[router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n"
        "max_segment_size = 104857600\nmax_segment_count = 10\n"
        f'[v4.1]\nname = "v4-1"\nlisten = "127.0.0.1:{port}"\nnext_connection_delay_ms = 1\n'
        "[v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 4194304\n"
        "max_inflight_count = 100\ndynamic_filters = true\n",
        encoding="utf-8",
    )
    program = str(CACHE / "rumqttd" / "bin" / "rumqttd")
    return [program, "-c", str(folder / "rumqttd.toml"), "-q"]


def _get_rmqtt() -> str:
    manifest = str(RECIPES / "rmqtt" / "Cargo.toml")
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", manifest]
    _build(command, {"CARGO_TARGET_DIR": str(CACHE / "build")})
    return RMQTT


def _rmqtt(port: int, _: Path) -> list[str]:
    return [str(CACHE / "build" / "release" / "rmqtt-bench"), str(port)]


def _get_amqtt() -> str:
    program = CACHE / "amqtt" / "bin" / "amqtt"
    if not program.exists():
        _build([sys.executable, "-m", "venv", str(CACHE / "amqtt")])
        pip = str(CACHE / "amqtt" / "bin" / "pip")
        _build([pip, "install", "--quiet", f"amqtt=={AMQTT}"])
    return AMQTT


def _amqtt(port: int, folder: Path) -> list[str]:
    (folder / "amqtt.yaml").write_text(
        f"listeners:\n  default:\n    type: tcp\n    bind: 127.0.0.1:{port}\n"
        "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n"
        "    allow_anonymous: true\n",
        encoding="utf-8",
    )
    return [str(CACHE / "amqtt" / "bin" / "amqtt"), "-c", str(folder / "amqtt.yaml")]


FLOOR = WithCertificate(
    "floor",
    "floor (no broker)",
    _get_floor,
    _floor,
    qos_max=1,
    transports=("tcp", "tls"),
    versions=(4,),
    secure=_floor_tls,
)
OURS = Ours(
    "casemate", "casemate", get_ours, _casemate(1), transports=("tcp", "tls", "mtls", "wss")
)
SHARDED = Ours("casemate-2", "casemate, two shards", get_ours, _casemate(2), suites=("shards",))
RULED = tuple(
    Ours(
        f"casemate-{rules}",
        f"casemate, a role of {rules:,} rules",
        get_ours,
        _governed(rules),
        suites=("rules",),
    )
    for rules in RULES
)
PATTERNED = tuple(
    WithPassword(
        f"mosquitto-{rules}",
        f"mosquitto, {rules:,} patterns",
        get_mosquitto,
        _mosquitto_patterns(rules),
        suites=("rules",),
    )
    for rules in RULES
)

PEERS = (
    FLOOR,
    OURS,
    SHARDED,
    *RULED,
    WithCertificate(
        "mosquitto",
        "mosquitto",
        get_mosquitto,
        mosquitto,
        transports=("tcp", "tls"),
        secure=_mosquitto_tls,
    ),
    *PATTERNED,
    Peer("mochi", "mochi", _get_mochi, _mochi),
    Peer("rumqttd", "rumqttd", _get_rumqttd, _rumqttd, versions=(4,)),
    Peer("rmqtt", "rmqtt", _get_rmqtt, _rmqtt),
    Peer("nats", "nats-server", get_nats, nats, versions=(4,)),
    Peer("amqtt", "aMQTT", _get_amqtt, _amqtt, versions=(4,), stretch=5.0),
)


# Inside


def _require(program: str, source: str) -> None:
    if shutil.which(program) is None:
        raise Missing(f"{program} is not installed ({source})")


def _build(
    command: list[str], variables: dict[str, str] | None = None, folder: Path = ROOT
) -> None:
    """Runs what brings a peer here.

    Raises:
        Missing: With its own last words.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=BUILD_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]} did not end well: {error}") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
        raise Missing(f"{' '.join(command[:3])} failed: {words[-1][:200]}")


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0]


def free_port() -> int:
    """Gives a port on loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def ended(
    command: list[str], said: IO[bytes], folder: Path, *, output: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program on the broker's core, and ends it: asked first, then not."""
    process = subprocess.Popen(
        on_core(BROKER_CORE, command),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if output else said,
        stderr=said,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Waits until a program accepts connections.

    Raises:
        Missing: It ends before, or takes too long.
    """
    until = time.monotonic() + START_S_MAX
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Missing(f"it does not start: {_last_words(log)}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    raise Missing(f"it does not listen after {START_S_MAX} s: {_last_words(log)}")


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it says nothing"
