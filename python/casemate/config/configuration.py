"""The whole configuration as a value that was checked, and its text for a new home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StrictBool, StrictInt, field_validator, model_validator
from pydantic_core import PydanticCustomError

from casemate import layout
from casemate.config.limits import Limits
from casemate.config.listener import Listener
from casemate.config.log import Log
from casemate.config.section import Section, contradiction
from casemate.config.store import Store

FILE_NAME = layout.CONFIGURATION
SERVER_CERTIFICATE = layout.SERVER_CERTIFICATE
SERVER_KEY = layout.SERVER_KEY

NO_LISTENER_HINT = 'add [[listeners]] with kind = "tls" and port = 8883'


class Configuration(Section):
    """Holds a whole configuration that was found valid.

    Attributes:
        listeners: At least one; no two on the same address or of the same name.
        limits: Bounds on what peers may ask.
        log: What is written while the broker serves.
        store: What is kept over the broker's end.
        shards: Threads that carry connections, 0–256; 0 is one for each core.
        reload_on_change: Whether a change of this file, of a certificate or of a key comes into
            force by itself, and not only when it is asked for.
        drain_s: Seconds in which a broker that is told to stop keeps its promises, 0–3,600.
        server_reference: Where clients are sent when it stops, 1–1,024 characters, such as
            `other.example:8883` (MQTT 5.0 §4.11); absent: they are told that it goes away.
    """

    listeners: Annotated[tuple[Listener, ...], Field(max_length=64)]
    limits: Limits = Limits()
    log: Log = Log()
    store: Store = Store()
    shards: Annotated[StrictInt, Field(ge=0, le=256)] = 1
    reload_on_change: StrictBool = False
    drain_s: Annotated[StrictInt, Field(ge=0, le=3_600)] = 5
    server_reference: Annotated[str, Field(strict=True, min_length=1, max_length=1_024)] | None = (
        None
    )

    @field_validator("server_reference")
    @classmethod
    def _admit_reference(cls, reference: str | None) -> str | None:
        if reference is not None and not reference.isprintable():
            raise PydanticCustomError("reference", "expected a name without control characters", {})
        return reference

    @model_validator(mode="after")
    def _refuse_none_and_twins(self) -> Self:
        if not self.listeners:
            raise contradiction("listeners", "no listener is declared", NO_LISTENER_HINT)
        taken: set[object] = set()
        for position, listener in enumerate(self.listeners):
            address = listener.socket or (listener.host, listener.port)
            if address in taken:
                raise _twins(position, listener)
            if listener.socket is not None or listener.port != 0:
                taken.add(address)
        names: set[str] = set()
        for position, (name, _) in enumerate(self.named()):
            if name in names:
                raise contradiction(
                    ("listeners", position, "name"),
                    f'two listeners have the name "{name}"',
                    "give each its own name",
                )
            names.add(name)
        return self

    def named(self) -> tuple[tuple[str, Listener], ...]:
        """Gives each listener with its name; without one, its kind, counted from the second on."""
        counts: dict[str, int] = {}
        named = []
        for listener in self.listeners:
            name = listener.name
            if name is None:
                counts[listener.kind] = count = counts.get(listener.kind, 0) + 1
                name = listener.kind if count == 1 else f"{listener.kind}-{count}"
            named.append((name, listener))
        return tuple(named)

    def in_home(self, home: Path) -> Configuration:
        """Gives the same configuration with every file path absolute.

        Args:
            home: Folder that relative paths start from; its own server certificate serves the
                TLS listeners that name none.
        """
        home = home.absolute()
        listeners = tuple(_in_home(listener, home) for listener in self.listeners)
        store = self.store.in_home(home)
        return self.model_copy(update={"listeners": listeners, "store": store})


def default_text() -> str:
    """Gives the `casemate.toml` of a new home, with comments that teach.

    Example:
        ```python
        from casemate.config import default_text

        print(default_text().count("[[listeners]]"))  # 3
        ```
    """
    limits = Limits()
    return _DEFAULT_TEXT + "".join(
        f"# {name} = {getattr(limits, name)}\n" for name in Limits.model_fields
    )


def _twins(position: int, listener: Listener) -> PydanticCustomError:
    if listener.socket is not None:
        return contradiction(
            ("listeners", position, "socket"),
            f"two listeners on the socket {str(listener.socket)!a}",
            "give each its own socket",
        )
    return contradiction(
        ("listeners", position, "port"),
        f"two listeners on {listener.host} port {listener.port}",
        "give each its own port",
    )


def _in_home(listener: Listener, home: Path) -> Listener:
    paths: dict[str, Path] = {}
    if listener.is_encrypted:
        paths["certificate"] = home / (listener.certificate or SERVER_CERTIFICATE)
        paths["key"] = home / (listener.key or SERVER_KEY)
    if listener.client_ca is not None:
        paths["client_ca"] = home / listener.client_ca
    if listener.socket is not None:
        paths["socket"] = home / listener.socket
    return listener.model_copy(update=paths)


_DEFAULT_TEXT = """\
#:schema ./casemate.schema.json
# Editors that know this line help once "casemate config schema > casemate.schema.json" was run.

# The configuration of this broker. Every option that is not set here has a safe value.
# What weakens the broker is spelled insecure_* and needs a written reason.

# Threads that carry connections; 0 is one for each core.
shards = 1

# Certificates, keys, listeners and this file take effect on "casemate reload" and on SIGHUP;
# with true also whenever one of them changes. Accounts and policy always do.
reload_on_change = false

# MQTT over TLS 1.3 on every address of this machine.
# A device shows its certificate; who shows none needs a name and a password.
[[listeners]]
kind = "tls"
host = "0.0.0.0"
port = 8883
client_certificates = "optional"   # "required" turns passwords off, "none" certificates

# The same over WebSocket, for browsers and for networks that let nothing else through.
[[listeners]]
kind = "wss"
host = "0.0.0.0"
port = 8084
path = "/mqtt"
# origins = ["https://app.example"]   # the pages that may connect; all, where none is named

# Plaintext is for programs on this machine only; uncomment it for tools without TLS.
# [[listeners]]
# kind = "tcp"
# host = "127.0.0.1"
# port = 1883

# What must be kept is safe on the disk before it is acknowledged. "os" loses the last moments with
# the power, "memory" everything with the process.
[store]
durability = "disk"
# key_file = "store.key"   # encrypts what is kept; make one with: openssl rand -hex 32

# What a peer may ask for. These are the defaults: uncomment a line to change it.
[limits]
"""
