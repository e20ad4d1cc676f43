"""A throw-away broker for tests and benchmarks: on loopback, every transport at once, two users.

It can be reached from this machine only, whatever it is told: no option names an address.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from casemate import files, identity, native, policy
from casemate.broker import Broker
from casemate.config import (
    SOCKETS_PATH_BYTES_MAX,
    WS_PATH,
    Configuration,
    Limits,
    Listener,
    Store,
)
from casemate.document import nearest
from casemate.errors import ConfigurationError, HomeError
from casemate.home import Home
from casemate.identity import Accounts
from casemate.passwords import PasswordCost, generate_password

LOOPBACK = "127.0.0.1"

USERS = ("all", "some")
DEVICE = "all-device"
"""The identity with a certificate; its role is `all`."""

# A lab is measured and tried out by its owner alone: it takes more than a broker should from
# strangers, so that a benchmark meets the broker's speed and not its limits.
ROOMY = {
    "packet_bytes_max": 16 * 1024 * 1024,
    "connections_max": 50_000,
    "sessions_max": 200_000,
    "subscriptions_per_session_max": 1_000_000,
    "topic_levels_max": 128,
    "queue_messages_max": 100_000,
    "retained_max": 2_000_000,
    "retained_bytes_max": 2 * 1024 * 1024 * 1024,
}

ARGON2_TIME = 1
ARGON2_MEMORY_KIB = 1_024
"""A password check costs about a millisecond here, where passwords are random and thrown away."""

SYS_INTERVAL_S = 10
"""Between two reports under `$SYS/`, as of every broker."""

_STATE_FILE = "lab.json"
_PASSWORD_THREADS = 2
_SOCKET_FILE = "mqtt.sock"
_PORTS = {"port": "tcp", "tls_port": "tls", "mtls_port": "mtls", "ws_port": "ws", "wss_port": "wss"}
"""The ports of a lab and the names of their listeners."""

_POLICY = """\
# The lab's two users.

# May do everything; "#" does not cover topics that begin with $.
[roles.all]
allow = [
    { both = "#", retain = true },
    { subscribe = "$SYS/#" },
]

# An ordinary user: its own topics, those that everybody shares, and a look at the devices.
[roles.some]
allow = [
    { both = "users/%u/#", retain = true },
    { both = "public/#", retain = true },
    { subscribe = "devices/#" },
]

# Of the operator that every home has.
[roles.operator]
allow = [
    { both = "#", retain = true },
    { subscribe = "$SYS/#" },
]
"""


@dataclass(slots=True)
class LabOptions:
    """Describes a lab.

    Attributes:
        port: Plaintext MQTT on loopback; None takes the port of last time, or a free one.
        tls_port: MQTT over TLS; client certificates are optional.
        mtls_port: MQTT over TLS; a client certificate is required.
        ws_port: MQTT over WebSocket, in plaintext on loopback.
        wss_port: MQTT over WebSocket and TLS; client certificates are optional.
        unix_socket: Path of a unix socket, in a folder that exists; None is one in `data`.
        data: Folder that keeps identities, ports and passwords; None is a temporary one.
        shards: Threads that carry connections, 0-64; 0 is one for each core.
        settings: `key=value` texts: limits by their names in the configuration, `argon2_time` and
            `argon2_memory_kib`, and `sys_interval_s`, 0-86,400, of the reports under `$SYS/`.
    """

    port: int | None = None
    tls_port: int | None = None
    mtls_port: int | None = None
    ws_port: int | None = None
    wss_port: int | None = None
    unix_socket: Path | None = None
    data: Path | None = None
    shards: int = 1
    settings: tuple[str, ...] = ()


@dataclass(slots=True)
class _State:
    """Holds what a lab keeps over restarts; never shown."""

    ports: dict[str, int] = field(default_factory=dict)
    socket: str = ""
    passwords: dict[str, str] = field(default_factory=dict)


class Lab:
    """Runs a lab between `start` and `stop`, or inside `with`."""

    def __init__(
        self, options: LabOptions, on_event: Callable[[native.Event], None] | None = None
    ) -> None:
        """Reads the options; nothing is opened yet.

        Args:
            options: What is wanted.
            on_event: As `raw_events` of `Broker`.

        Raises:
            ConfigurationError: A setting is unknown, no number, or out of range.
        """
        limits, cost, sys_interval_s = _settings(options.settings)
        self._options = options
        self._on_event = on_event
        self._limits = limits
        self._cost = cost
        self._sys_interval_s = sys_interval_s
        self._data: Path | None = None
        self._nook: Path | None = None
        self._state = _State()
        self._broker: Broker | None = None

    @property
    def broker(self) -> Broker:
        """The broker of this lab.

        Raises:
            HomeError: It was not started.
        """
        if self._broker is None:
            raise HomeError("the lab was not started")
        return self._broker

    def start(self) -> None:
        """Makes or opens the home, and serves.

        Raises:
            CasemateError: As `Broker.start` and `Home.init`.
        """
        try:
            home = self._prepare()
            self._broker = Broker(
                home,
                configuration=self._configuration(home),
                password_cost=self._cost,
                password_threads=_PASSWORD_THREADS,
                sys_interval_s=self._sys_interval_s,
                raw_events=self._on_event,
            )
            self._broker.start()
            self._keep()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops, and removes what was temporary; idempotent."""
        if self._broker is not None:
            self._broker.stop()
        if self._data is not None and self._options.data is None:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data = None
        if self._nook is not None:
            shutil.rmtree(self._nook, ignore_errors=True)
            self._nook = None

    def __enter__(self) -> Lab:
        """Starts; raises as `start`."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self.stop()

    def ready(self) -> dict[str, Any]:
        """Gives all that a test needs to know, the random passwords included.

        Raises:
            HomeError: It was not started.
        """
        broker = self.broker
        own = Home.open(broker.home).local_identity(DEVICE)
        return {
            "host": LOOPBACK,
            **self._ports(),
            "ws_path": WS_PATH,
            "unix_socket": str(self._socket()),
            "ca_file": str(own.ca),
            "client_cert": str(own.certificate),
            "client_key": str(own.key),
            "users": dict(self._state.passwords),
            "pid": os.getpid(),
            "data_dir": str(self._data),
        }

    # Inside

    def _prepare(self) -> Path:
        if self._options.data is None:
            self._data = Path(tempfile.mkdtemp(prefix="casemate-lab-"))
        else:
            self._data = self._options.data.absolute()
            try:
                self._data.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
            except OSError as error:
                raise HomeError(
                    f"{self._data} cannot be made", cause=files.reason(error)
                ) from error
        home = self._data / "home"
        state_file = self._data / _STATE_FILE
        if home.exists() and state_file.exists():
            self._state = _read_state(state_file)
        else:
            # What a start that was cut short has left is not a lab.
            shutil.rmtree(home, ignore_errors=True)
            self._make(home)
            self._keep_state()
        return home

    def _make(self, home: Path) -> None:
        Home.init(home)
        files.write_whole(home / policy.FILE_NAME, _POLICY.encode(), files.PRIVATE_MODE)
        with Accounts(home / identity.FILE_NAME, cost=self._cost) as accounts:
            for name in USERS:
                secret = self._state.passwords[name] = generate_password(name)
                accounts.add(name, "user", [name], secret)
        Home.open(home).add_device(DEVICE, "all")

    def _configuration(self, home: Path) -> Configuration:
        ports = {key: getattr(self._options, key) for key in _PORTS}
        chosen = {
            name: self._state.ports.get(key, 0) if ports[key] is None else ports[key]
            for key, name in _PORTS.items()
        }
        return Configuration(
            listeners=(
                Listener(kind="tcp", name="tcp", host=LOOPBACK, port=chosen["tcp"]),
                Listener(kind="tls", name="tls", host=LOOPBACK, port=chosen["tls"]),
                Listener(
                    kind="tls",
                    name="mtls",
                    host=LOOPBACK,
                    port=chosen["mtls"],
                    client_certificates="required",
                ),
                Listener(kind="ws", name="ws", host=LOOPBACK, port=chosen["ws"], path=WS_PATH),
                Listener(kind="wss", name="wss", host=LOOPBACK, port=chosen["wss"], path=WS_PATH),
                Listener(kind="unix", name="unix", socket=self._socket()),
            ),
            limits=self._limits,
            shards=self._options.shards,
            # A lab is measured for what it does, and thrown away.
            store=Store(durability="memory"),
        ).in_home(home)

    def _ports(self) -> dict[str, int]:
        listening = {one.name: one.port for one in self.broker.addresses}
        return {key: listening[name] for key, name in _PORTS.items()}

    def _socket(self) -> Path:
        """Gives the unix socket: as asked for, as last time, or in the lab's folder."""
        if self._options.unix_socket is not None:
            return self._options.unix_socket.absolute()
        if self._state.socket:
            return Path(self._state.socket)
        if self._data is None:
            raise HomeError("the lab was not started")
        usual = self._data / _SOCKET_FILE
        if len(os.fsencode(usual)) <= SOCKETS_PATH_BYTES_MAX:
            return usual
        # A deep folder's name does not fit into the address of a socket.
        if self._nook is None:
            self._nook = Path(tempfile.mkdtemp(prefix="casemate-lab-"))
        return self._nook / _SOCKET_FILE

    def _keep(self) -> None:
        self._state.ports = self._ports()
        if self._options.unix_socket is not None:
            self._state.socket = str(self._socket())
        self._keep_state()

    def _keep_state(self) -> None:
        if self._data is not None:
            text = json.dumps(asdict(self._state))
            files.write_whole(self._data / _STATE_FILE, text.encode(), files.PRIVATE_MODE)


def write_pid(path: Path) -> None:
    """Writes this process's number into a file.

    Raises:
        HomeError: It cannot be written.
    """
    files.write_whole(path, f"{os.getpid()}\n".encode(), files.PUBLIC_MODE)


def remove_pid(path: Path) -> None:
    """Removes the file, if it still names this process."""
    with contextlib.suppress(OSError):
        if path.read_text().strip() == str(os.getpid()):
            path.unlink()


def _read_state(path: Path) -> _State:
    files.require_private(path)
    try:
        values = json.loads(files.read_bounded(path))
        ports = {str(key): int(port) for key, port in values["ports"].items()}
        passwords = {name: str(values["passwords"][name]) for name in USERS}
        # Labs of an older version have kept none.
        socket = str(values.get("socket", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HomeError(
            f"{path} cannot be read", cause=str(error), hint="remove the folder to begin anew"
        ) from error
    return _State(ports, socket, passwords)


def _settings(texts: tuple[str, ...]) -> tuple[Limits, PasswordCost, int]:
    values: dict[str, int] = {}
    known = (*Limits.model_fields, "argon2_time", "argon2_memory_kib", "sys_interval_s")
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            meant = nearest(key, known)
            raise ConfigurationError(
                f"there is no setting {key!r}" if equals else f"{text!r} is not key=value",
                hint=f'did you mean "{meant}"?' if meant else f"settings: {', '.join(known)}",
            )
        try:
            values[key] = int(value)
        except ValueError as error:
            raise ConfigurationError(f"{key} is a whole number, found {value!r}") from error
    cost = PasswordCost(
        time=_within(values, "argon2_time", ARGON2_TIME, 1, 16),
        memory_kib=_within(values, "argon2_memory_kib", ARGON2_MEMORY_KIB, 8, 1_048_576),
    )
    interval_s = _within(values, "sys_interval_s", SYS_INTERVAL_S, 0, 86_400)
    try:
        return Limits(**{**ROOMY, **values}), cost, interval_s
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        context: Mapping[str, Any] = first.get("ctx", {})
        name = str((*first["loc"], *context.get("place", ()))[-1])
        raise ConfigurationError(
            f"{name}: {first['msg'].lower()}", hint=str(context.get("hint", ""))
        ) from error


def _within(values: dict[str, int], key: str, default: int, least: int, most: int) -> int:
    value = values.pop(key, default)
    if not least <= value <= most:
        raise ConfigurationError(f"{key} is {least:,} to {most:,}, found {value}")
    return value
