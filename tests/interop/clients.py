"""The clients of others that the tests drive: how each is installed, started and spoken to."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
PATIENCE_S = 20.0

_PEERS = PEERS.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Kind:
    """Describes one client library.

    Attributes:
        name: As its people write it.
        folder: Below `peers`.
        versions: Of MQTT, that it speaks.
        command: Starts the peer, in the tree's folder.
        release: File of the tree and expression that tell which release is run; None: Debian's.
        needs: Programs that must be there, each with the Debian package that brings it.
        install: Commands, run in its folder, that make it ready; None where nothing must be made.
        made: What stands in its folder when they have run.
        silent: It does not tell its user with which reason a publish was refused.
        wilful: Its goodbye in 5.0 asks the broker to publish the will all the same.
        apart: Each message that it publishes has a connection of its own.
        shuffles: What is unacknowledged it sends again in an order of its own.
        cannot: Transports and scenarios that are not to be had from it, and why.
    """

    name: str
    folder: str
    versions: tuple[str, ...]
    command: tuple[str, ...]
    release: tuple[str, str] | None = None
    needs: tuple[tuple[str, str], ...] = ()
    install: tuple[str, ...] | None = None
    made: str = ""
    silent: bool = False
    wilful: bool = False
    shuffles: bool = False
    apart: bool = False
    cannot: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The folder of its peer."""
        return PEERS / self.folder

    @property
    def title(self) -> str:
        """Its name and release."""
        if self.release is None:
            return f"{self.name} (Debian)"
        file, expression = self.release
        found = re.search(expression, (ROOT / file).read_text(encoding="utf-8"))
        assert found, f"{file} names no release of {self.name}"
        return f"{self.name} {found[1]}"

    def reason_against(self, transport: str, scenario: str) -> str | None:
        """Tells why this is not to be had from this client, or None."""
        return self.cannot.get(transport) or self.cannot.get(scenario)


def _python(folder: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"tests.interop.peers.{folder}.peer")


def _built(folder: str, program: str) -> tuple[str, ...]:
    return (str(PEERS / folder / program),)


_AGAIN = "hands a message on once more when the broker sends it once more after a cut"
_TOPICLESS = "hands on a message that came by alias without its topic"

KINDS = (
    Kind(
        "mosquitto_pub, mosquitto_sub",
        "mosquitto",
        ("3.1", "3.1.1", "5.0"),
        _python("mosquitto"),
        needs=(("mosquitto_sub", "mosquitto-clients"), ("stdbuf", "coreutils")),
        wilful=True,
        apart=True,
        cannot={
            "ws": "mosquitto's own clients speak no WebSocket before 2.1",
            "wss": "mosquitto's own clients speak no WebSocket before 2.1",
            "interrupted_sender": "mosquitto_pub connects anew for each message",
            "interrupted_receiver": "mosquitto_sub forgets at a cut what it has not handed on yet",
            "aliases_sent": "mosquitto_pub publishes once a connection, and aliases end with it",
            "aliases_received": "mosquitto_sub ends at the first message that comes by alias",
        },
    ),
    Kind(
        "paho-mqtt",
        "paho",
        ("3.1", "3.1.1", "5.0"),
        _python("paho"),
        release=("requirements.lock", r"paho-mqtt==(\S+)"),
        cannot={"aliases_received": f"paho-mqtt {_TOPICLESS}"},
    ),
    Kind(
        "aiomqtt",
        "aiomqtt",
        ("3.1.1", "5.0"),
        _python("aiomqtt"),
        release=("requirements.lock", r"aiomqtt==(\S+)"),
        silent=True,
        cannot={
            "interrupted_sender": "aiomqtt leaves it to its user to connect again",
            "interrupted_receiver": "aiomqtt leaves it to its user to connect again",
            "aliases_received": "aiomqtt takes no message that came by alias",
        },
    ),
    Kind(
        "gmqtt",
        "gmqtt",
        ("3.1.1", "5.0"),
        _python("gmqtt"),
        release=("requirements.lock", r"gmqtt==(\S+)"),
        silent=True,
        cannot={
            "ws": "gmqtt speaks MQTT over TCP and TLS only",
            "wss": "gmqtt speaks MQTT over TCP and TLS only",
            "interrupted_receiver": f"gmqtt {_AGAIN}",
        },
    ),
    Kind(
        "MQTT.js",
        "mqttjs",
        ("3.1.1", "5.0"),
        ("node", str(PEERS / "mqttjs" / "peer.mjs")),
        release=(f"{_PEERS}/mqttjs/package.json", r'"mqtt": "([^"]+)"'),
        needs=(("node", "nodejs"), ("npm", "npm")),
        install=("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"),
        made="node_modules/mqtt/package.json",
    ),
    Kind(
        "paho.mqtt.golang",
        "gopaho3",
        ("3.1.1",),
        _built("gopaho3", "build/peer"),
        release=(f"{_PEERS}/gopaho3/go.mod", r"paho\.mqtt\.golang v(\S+)"),
        cannot={
            "interrupted_sender": "paho.mqtt.golang publishes once more what it has released",
            "interrupted_receiver": f"paho.mqtt.golang {_AGAIN}",
        },
        needs=(("go", "golang"),),
        install=("go", "build", "-mod=readonly", "-o", "build/peer", "."),
        made="build/peer",
    ),
    Kind(
        "paho.golang",
        "gopaho5",
        ("5.0",),
        _built("gopaho5", "build/peer"),
        release=(f"{_PEERS}/gopaho5/go.mod", r"paho\.golang v(\S+)"),
        needs=(("go", "golang"),),
        install=("go", "build", "-mod=readonly", "-o", "build/peer", "."),
        made="build/peer",
        cannot={"aliases_received": f"paho.golang {_TOPICLESS}"},
    ),
    Kind(
        "rumqttc",
        "rumqttc",
        ("3.1.1", "5.0"),
        _built("rumqttc", "target/debug/casemate-interop-rumqttc"),
        shuffles=True,
        release=(f"{_PEERS}/rumqttc/Cargo.toml", r'rumqttc = \{ version = "=([^"]+)"'),
        needs=(("cargo", "cargo"),),
        install=("cargo", "build", "--locked", "--quiet", "--target-dir", "target"),
        made="target/debug/casemate-interop-rumqttc",
        cannot={
            "interrupted_receiver": f"rumqttc {_AGAIN}",
            "aliases_received": f"rumqttc {_TOPICLESS}",
        },
    ),
)


def missing(kind: Kind) -> str | None:
    """Makes a client ready; gives the reason where it cannot be, and None where it is."""
    for program, package in kind.needs:
        if shutil.which(program) is None:
            return f'{program} is not installed (Debian package "{package}")'
    if kind.install is None:
        return None
    made = kind.path / kind.made
    # By content: a checkout touches files that it does not change.
    stamp, digest = made.with_name(f"{made.name}.sources"), _digest(kind.path)
    if made.exists() and stamp.exists() and stamp.read_text() == digest:
        return None
    print(f"interop: {kind.name}: {' '.join(kind.install)}", flush=True)
    # Its own environment: a target folder or linker flags of the tree are none of its business.
    own = {key: value for key, value in os.environ.items() if not key.startswith("CARGO_TARGET")}
    done = subprocess.run(
        kind.install, cwd=kind.path, env=own, check=False, capture_output=True, text=True
    )
    if done.returncode:
        return f"{' '.join(kind.install[:2])} failed: {(done.stderr or done.stdout)[-1500:]}"
    stamp.write_text(digest)
    return None


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted((*folder.iterdir(), *folder.glob("src/*"))):
        if path.is_file():
            found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


class PeerFault(AssertionError):
    """A peer could not take a step."""


class Running:
    """Is a peer's process: steps in, answers and messages out."""

    def __init__(self, kind: Kind) -> None:
        """Starts it."""
        self.kind = kind
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._messages: dict[str, queue.Queue[dict[str, Any]]] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `stop`.
        self._process = subprocess.Popen(
            kind.command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, do: str, client: str, **fields: Any) -> int:  # noqa: ANN401 - of the line.
        """Writes a step; gives its number."""
        number = next(self._numbers)
        self._answers[number] = queue.Queue()
        step = {"id": number, "do": do, "as": client, **fields}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(step) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFault(f"{self.kind.name} has ended: {self.errors()}") from None
        return number

    def answer(self, number: int) -> dict[str, Any]:
        """Waits for the answer to a step.

        Raises:
            PeerFault: The peer could not take it, or has said nothing.
        """
        try:
            found = self._answers[number].get(timeout=PATIENCE_S)
        except queue.Empty:
            raise PeerFault(f"{self.kind.name} has not answered; {self.errors()}") from None
        del self._answers[number]
        if "fault" in found:
            raise PeerFault(f"{self.kind.name}: {found['fault']}")
        return found

    def messages(self, client: str) -> queue.Queue[dict[str, Any]]:
        """Gives what came to a client, as it came."""
        return self._messages.setdefault(client, queue.Queue())

    def errors(self) -> str:
        """Gives the end of what the peer has written for people."""
        self._errors.seek(0)
        return self._errors.read()[-2000:]

    def stop(self) -> None:
        """Ends it: by the end of its input, else by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._reader.join(10)
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            if "message" in line:
                self.messages(line["as"]).put(line["message"])
            elif "id" in line and line["id"] in self._answers:
                self._answers[line["id"]].put(line)
        for waiting in list(self._answers.values()):
            waiting.put({"fault": "the peer has ended"})


@dataclass(frozen=True)
class Message:
    """Is a message as a client has it; what was absent is empty."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    user: list[tuple[str, str]]
    response_topic: str
    correlation: bytes
    content_type: str
    expiry_s: int | None
    identifiers: list[int]


class Client:
    """Is one client of a peer."""

    def __init__(self, peer: Running) -> None:
        """Gives it a name of its own; `open` connects it."""
        self._peer = peer
        self.name = f"{peer.kind.folder}-{secrets.token_hex(4)}"
        self.present: bool | None = None
        self.granted: list[int] = []
        self.connected = False

    def open(
        self,
        way: dict[str, Any],
        version: str,
        *filters: str,
        qos: int = 0,
        **options: Any,  # noqa: ANN401 - of the line.
    ) -> dict[str, Any]:
        """Connects and subscribes; gives the answer, which may be a refusal."""
        identifier = options.pop("identifier", None)
        extra = {} if identifier is None else {"identifier": identifier}
        subscriptions = [{"filter": one, "qos": qos, **extra} for one in filters]
        fields = {"client_id": self.name, "clean": True, "subscriptions": subscriptions, **options}
        number = self._peer.ask("open", self.name, way=way, version=version, **fields)
        found = self._peer.answer(number)
        self.present = found.get("present")
        self.granted = found.get("granted", [])
        self.connected = "refused" not in found
        return found

    def publish(
        self,
        topic: str,
        *payloads: bytes,
        qos: int = 0,
        retain: bool = False,
        **properties: Any,  # noqa: ANN401 - of the line.
    ) -> list[Any]:
        """Publishes one after the other, all under way at once; gives the reasons."""
        fields = {"topic": topic, "qos": qos, "retain": retain, **properties}
        numbers = [
            self._peer.ask("publish", self.name, payload=payload.hex(), **fields)
            for payload in payloads
        ]
        return [self._peer.answer(number).get("reason") for number in numbers]

    def take(self, count: int = 1) -> list[Message]:
        """Waits for so many messages."""
        return [self._take() for _ in range(count)]

    def close(self) -> None:
        """Says goodbye."""
        self.connected = False
        self._peer.answer(self._peer.ask("close", self.name))

    def drop(self) -> None:
        """Forgets a connection that was cut."""
        self.connected = False
        self._peer.answer(self._peer.ask("drop", self.name))

    def _take(self) -> Message:
        try:
            found = self._peer.messages(self.name).get(timeout=PATIENCE_S)
        except queue.Empty:
            raise PeerFault(
                f"{self._peer.kind.name}: no message has come; {self._peer.errors()}"
            ) from None
        return Message(
            topic=found["topic"],
            payload=bytes.fromhex(found["payload"]),
            qos=found["qos"],
            retain=found["retain"],
            user=[(key, value) for key, value in found.get("user") or []],
            response_topic=found.get("response_topic") or "",
            correlation=bytes.fromhex(found.get("correlation") or ""),
            content_type=found.get("content_type") or "",
            expiry_s=found.get("expiry_s"),
            identifiers=found.get("identifiers") or [],
        )
