"""The configuration, `casemate.toml`: what the broker listens on, and how much it may be asked.

Every option has a safe zero value. An unknown key is an error, never ignored. What weakens the
broker is spelled `insecure_*` and needs a written reason.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from casemate.document import Document, nearest
from casemate.errors import CasemateError, ConfigurationError
from casemate.names import admit_role_name

FILE_NAME = "casemate.toml"
SERVER_CERTIFICATE = Path("pki/server.crt")
SERVER_KEY = Path("pki/server.key")

REASON_CHARACTERS_MIN = 10
REASON_CHARACTERS_MAX = 500

_BYTES_MAX = 2**40
_NO_LISTENER_HINT = 'add [[listeners]] with kind = "tls" and port = 8883'
_LATER_KINDS = ("ws", "wss")

_Reason = Annotated[
    str, Field(strict=True, min_length=REASON_CHARACTERS_MIN, max_length=REASON_CHARACTERS_MAX)
]


class _Section(BaseModel):
    """Refuses unknown keys and never changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Listener(_Section):
    """Describes one address that the broker listens on.

    Attributes:
        kind: `tls` (MQTT over TLS 1.3) or `tcp` (MQTT in plaintext).
        host: IPv4 or IPv6 address, or `localhost`, which is read as 127.0.0.1. Names are not
            looked up: what was checked here must be what is bound.
        port: 0–65535; 0 lets the system choose a free one.
        client_certificates: Whether a TLS client shows a certificate: `none`, `optional`
            (default for `tls`; who shows none needs a password) or `required`.
        certificate: PEM file with the server's certificate and its chain, relative to the home.
        key: PEM file with its private key, relative to the home; set together with it.
        insecure_plaintext: Written reason, 10–500 characters, for plaintext off loopback.
        insecure_anonymous: Written reason, 10–500 characters, for anonymous access off loopback.
        anonymous_role: Role of clients that prove nothing; absent: they are refused.
    """

    kind: Literal["tls", "tcp"]
    host: StrictStr = "127.0.0.1"
    port: Annotated[int, Field(strict=True, ge=0, le=65_535)]
    client_certificates: Literal["none", "optional", "required"] = "none"
    certificate: Path | None = None
    key: Path | None = None
    insecure_plaintext: _Reason | None = None
    insecure_anonymous: _Reason | None = None
    anonymous_role: StrictStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_by_kind(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic hands over anything.
        if isinstance(values, Mapping) and values.get("kind") == "tls":
            return {"client_certificates": "optional", **values}
        return values

    @field_validator("kind", mode="before")
    @classmethod
    def _refuse_later_kinds(cls, kind: object) -> object:
        if kind in _LATER_KINDS:
            raise PydanticCustomError(
                "kind_later",
                "listeners of kind {kind} are not supported in this version",
                {"kind": f'"{kind}"', "hint": 'use kind = "tls"'},
            )
        return kind

    @field_validator("host")
    @classmethod
    def _admit_host(cls, host: str) -> str:
        if host == "localhost":
            return "127.0.0.1"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address is None or "%" in host:
            raise PydanticCustomError(
                "host",
                "expected an IP address",
                {"hint": 'use "127.0.0.1", "::1", "0.0.0.0" (every address) or one of yours'},
            )
        return str(address)

    @field_validator("certificate", "key", mode="before")
    @classmethod
    def _admit_path(cls, path: object) -> object:
        if isinstance(path, Path) or (isinstance(path, str) and path and "\0" not in path):
            return path
        raise PydanticCustomError("path", "expected the path of a file", {})

    @field_validator("insecure_plaintext", "insecure_anonymous", mode="before")
    @classmethod
    def _strip_reason(cls, text: object) -> object:
        # Ten spaces are not a reason.
        return text.strip() if isinstance(text, str) else text

    @field_validator("anonymous_role")
    @classmethod
    def _admit_role(cls, role: str | None) -> str | None:
        if role is not None:
            try:
                admit_role_name(role)
            except CasemateError as error:
                raise PydanticCustomError(
                    "role", "expected a role", {"hint": error.hint}
                ) from error
        return role

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.kind == "tcp":
            self._refuse_tls_options()
        elif self.insecure_plaintext is not None:
            raise _contradiction(
                "insecure_plaintext", "a tls listener is never plaintext", "remove the line"
            )
        if (self.certificate is None) != (self.key is None):
            raise _contradiction(
                "certificate" if self.key is None else "key",
                "certificate and key are set together or not at all",
                "set both, or neither to use the home's own",
            )
        self._refuse_open_doors()
        return self

    def _refuse_tls_options(self) -> None:
        for option in ("certificate", "key"):
            if getattr(self, option) is not None:
                raise _contradiction(
                    option, "a tcp listener has no certificate", 'use kind = "tls"'
                )
        if self.client_certificates != "none":
            raise _contradiction(
                "client_certificates",
                "a tcp listener cannot ask for certificates",
                'use kind = "tls"',
            )
        if not self.is_loopback and self.insecure_plaintext is None:
            raise _contradiction(
                "host",
                f"a plaintext listener on {self.host} shows every password and message",
                'use kind = "tls", or host = "127.0.0.1", or give the reason in '
                'insecure_plaintext = "…"',
            )

    def _refuse_open_doors(self) -> None:
        if self.anonymous_role is None:
            if self.insecure_anonymous is not None:
                raise _contradiction(
                    "insecure_anonymous",
                    "anonymous access needs a role",
                    'add anonymous_role = "…", or remove the line',
                )
            return
        if self.client_certificates == "required":
            raise _contradiction(
                "anonymous_role",
                "a listener that requires certificates has no anonymous clients",
                'use client_certificates = "optional", or remove the line',
            )
        if not self.is_loopback and self.insecure_anonymous is None:
            raise _contradiction(
                "anonymous_role",
                f"anonymous access on {self.host} lets anybody in",
                'use host = "127.0.0.1", or give the reason in insecure_anonymous = "…"',
            )

    @property
    def is_loopback(self) -> bool:
        """Tells whether only this machine can reach the listener."""
        return ipaddress.ip_address(self.host).is_loopback


class Limits(_Section):
    """Bounds what one peer, and all together, may ask of the broker.

    Attributes:
        packet_bytes_max: Largest MQTT packet, 128 B–268,435,460 B (what the protocol can say).
        keep_alive_s_max: Longest keep-alive, 5–65,535 s; a client that asks for more, or for
            none, gets this one. 1200 s is what large public brokers allow.
        connect_deadline_s: Time from accept to a complete CONNECT, 1–300 s.
        session_expiry_s_max: Longest life of a session without a connection,
            0–4,294,967,294 s; no session lives for ever.
        sessions_max: Sessions kept, with and without a connection, 1–10,000,000.
        connections_max: Connections open at once, 1–1,000,000.
        subscriptions_per_session_max: Filters of one session, 1–1,000,000.
        receive_max: QoS 1 and 2 messages a client may send before it is answered, 1–65,535.
        inflight_max: QoS 1 and 2 messages sent to a client before it answers, 1–65,535.
        topic_alias_max: Topic aliases a client may set, 0–65,535.
        topic_levels_max: Levels of a topic or filter, 1–1,024.
        queue_messages_max: Messages waiting for one session, 1–10,000,000.
        queue_bytes_max: Bytes waiting for one session, 128 B–1 TiB, at least one packet.
        retained_max: Retained messages, 0–100,000,000; 0 refuses them all.
        retained_bytes_max: Bytes of retained messages, 0 B–1 TiB.
    """

    packet_bytes_max: Annotated[StrictInt, Field(ge=128, le=268_435_460)] = 1_048_576
    keep_alive_s_max: Annotated[StrictInt, Field(ge=5, le=65_535)] = 1_200
    connect_deadline_s: Annotated[StrictInt, Field(ge=1, le=300)] = 10
    session_expiry_s_max: Annotated[StrictInt, Field(ge=0, le=4_294_967_294)] = 604_800
    sessions_max: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = 100_000
    connections_max: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 10_000
    subscriptions_per_session_max: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 1_000
    receive_max: Annotated[StrictInt, Field(ge=1, le=65_535)] = 1_024
    inflight_max: Annotated[StrictInt, Field(ge=1, le=65_535)] = 1_024
    topic_alias_max: Annotated[StrictInt, Field(ge=0, le=65_535)] = 64
    topic_levels_max: Annotated[StrictInt, Field(ge=1, le=1_024)] = 32
    queue_messages_max: Annotated[StrictInt, Field(ge=1, le=10_000_000)] = 10_000
    queue_bytes_max: Annotated[StrictInt, Field(ge=128, le=_BYTES_MAX)] = 67_108_864
    retained_max: Annotated[StrictInt, Field(ge=0, le=100_000_000)] = 100_000
    retained_bytes_max: Annotated[StrictInt, Field(ge=0, le=_BYTES_MAX)] = 268_435_456

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        # A packet that is admitted but fits no queue would be acknowledged and then lost.
        if self.queue_bytes_max < self.packet_bytes_max:
            raise _contradiction(
                "queue_bytes_max",
                "a queue must hold at least one packet of packet_bytes_max",
                f"use at least {self.packet_bytes_max}, or lower packet_bytes_max",
            )
        if self.retained_max > 0 and self.retained_bytes_max < self.packet_bytes_max:
            raise _contradiction(
                "retained_bytes_max",
                "the retained store must hold at least one packet of packet_bytes_max",
                f"use at least {self.packet_bytes_max}, or retained_max = 0 for none at all",
            )
        if self.sessions_max < self.connections_max:
            raise _contradiction(
                "sessions_max",
                "every connection needs a session",
                f"use at least {self.connections_max}, or lower connections_max",
            )
        return self


class Configuration(_Section):
    """Holds a whole configuration that was found valid.

    Attributes:
        listeners: At least one; no two on the same address and port.
        limits: Bounds on what peers may ask.
        shards: Threads that carry connections, 0–256; 0 is one for each core.
    """

    listeners: Annotated[tuple[Listener, ...], Field(max_length=64)]
    limits: Limits = Limits()
    shards: Annotated[StrictInt, Field(ge=0, le=256)] = 1

    @model_validator(mode="after")
    def _refuse_none_and_twins(self) -> Self:
        if not self.listeners:
            raise _contradiction("listeners", "no listener is declared", _NO_LISTENER_HINT)
        taken = set()
        for position, listener in enumerate(self.listeners):
            address = (listener.host, listener.port)
            if listener.port != 0 and address in taken:
                raise _contradiction(
                    ("listeners", position, "port"),
                    f"two listeners on {listener.host} port {listener.port}",
                    "give each its own port",
                )
            taken.add(address)
        return self

    def in_home(self, home: Path) -> Configuration:
        """Gives the same configuration with every file path absolute.

        Args:
            home: Folder that relative paths start from; its own server certificate serves the
                TLS listeners that name none.
        """
        home = home.absolute()
        listeners = tuple(
            listener.model_copy(
                update={
                    "certificate": home / (listener.certificate or SERVER_CERTIFICATE),
                    "key": home / (listener.key or SERVER_KEY),
                }
            )
            if listener.kind == "tls"
            else listener
            for listener in self.listeners
        )
        return self.model_copy(update={"listeners": listeners})


def load(home: Path) -> Configuration:
    """Reads and checks the configuration of a home.

    Args:
        home: Folder that holds `casemate.toml`.

    Returns:
        The configuration, with the paths of certificates and keys absolute.

    Raises:
        ConfigurationError: The file is missing, unreadable, not TOML, has an unknown key, a
            value out of range, or a contradiction; file, line and a hint are set.
    """
    document = Document.read(home / FILE_NAME, ConfigurationError)
    return parse(document).in_home(home)


def parse(document: Document) -> Configuration:
    """Checks a document that was read already; paths stay as they were written.

    Raises:
        ConfigurationError: As for `load`.
    """
    if not document.values.get("listeners"):
        raise document.wrong(
            ("listeners",),
            "no listener is declared",
            hint=_NO_LISTENER_HINT,
        )
    try:
        return Configuration.model_validate(document.values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise _described(document, problems) from error


def default_text() -> str:
    """Gives the `casemate.toml` of a new home, with comments that teach."""
    limits = Limits()
    return _DEFAULT_TEXT + "".join(
        f"# {name} = {getattr(limits, name)}\n" for name in Limits.model_fields
    )


def _contradiction(
    place: str | tuple[str | int, ...], message: str, hint: str
) -> PydanticCustomError:
    # The place rides along in the context: pydantic itself only knows the whole section here.
    where = (place,) if isinstance(place, str) else place
    return PydanticCustomError(
        "contradiction",
        "{what}",
        {
            "what": message,
            "hint": hint,
            "place": where,
        },
    )


def _described(document: Document, problems: list[ErrorDetails]) -> CasemateError:
    """Makes one error of the problem that stands first in the file."""
    described = [_describe(document, problem) for problem in problems]
    described.sort(key=lambda error: error.line or 0)
    first = described[0]
    if len(described) > 1:
        more = len(described) - 1
        first.message += f" (and {more} more {'problem' if more == 1 else 'problems'})"
    return first


def _describe(document: Document, problem: ErrorDetails) -> ConfigurationError:
    context = problem.get("ctx", {})
    place = (*problem["loc"], *context.get("place", ()))
    key = str(place[-1]) if place else "listeners"
    section = _section(place)
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = nearest(key, _keys(place[:-1]))
        return _error(
            document,
            place,
            f"unknown key {key[:64]!a} in {section}",
            f'did you mean "{known}"?' if known else f"known keys: {_listed(place[:-1])}",
        )
    if kind == "missing":
        return _error(document, place, f"{key} is missing in {section}", f"add {key} = …")
    if kind == "contradiction":
        return _error(document, place, str(context["what"]), str(context["hint"]))
    found = _found(problem["input"])
    message = f"{key} in {section}: {_expected(problem, context)}, found {found}"
    return _error(document, place, message, _hint(problem, context))


def _error(
    document: Document, place: tuple[str | int, ...], message: str, hint: str
) -> ConfigurationError:
    return ConfigurationError(message, file=document.file, line=document.line(place), hint=hint)


def _expected(problem: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind = problem["type"]
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"out of range, at {'least' if 'ge' in context else 'most'} {_bound(context)}"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind == "string_too_short":
        return f"expected a written reason of at least {context['min_length']} characters"
    if kind == "too_long":
        return f"expected at most {context['max_length']}"
    expected = {
        "int_type": "expected a whole number",
        "string_type": "expected text in quotes",
        "model_type": "expected a table",
        "tuple_type": "expected tables [[listeners]]",
    }
    message = problem["msg"]
    return expected.get(kind, message[:1].lower() + message[1:])


def _bound(context: Mapping[str, Any]) -> str:
    return f"{context.get('ge', context.get('le')):,}"


def _hint(problem: ErrorDetails, context: Mapping[str, Any]) -> str:
    if "hint" in context:
        return str(context["hint"])
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        choices = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        meant = nearest(problem["input"], choices)
        return f'did you mean "{meant}"?' if meant else ""
    if problem["type"] in ("greater_than_equal", "less_than_equal"):
        side = "lowest" if "ge" in context else "highest"
        return f"use {_bound(context)} ({side}), or remove the line for the default"
    return ""


def _found(value: object) -> str:
    """Shows what stands in the file, in plain ASCII and cut to fit a line."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    shown = str(value).lower() if isinstance(value, bool) else ascii(value)
    return shown if len(shown) <= 48 else f"{shown[:47]}…"


def _model(place: tuple[str | int, ...]) -> type[BaseModel]:
    sections: dict[str | int, type[BaseModel]] = {"listeners": Listener, "limits": Limits}
    return sections.get(place[0], Configuration) if place else Configuration


def _section(place: tuple[str | int, ...]) -> str:
    model = _model(place[:1] if len(place) > 1 else ())
    return {Listener: "[[listeners]]", Limits: "[limits]"}.get(model, FILE_NAME)


def _keys(section: tuple[str | int, ...]) -> list[str]:
    return list(_model(section).model_fields)


def _listed(section: tuple[str | int, ...]) -> str:
    return ", ".join(_keys(section))


_DEFAULT_TEXT = """\
# The configuration of this broker. Every option that is not set here has a safe value.
# What weakens the broker is spelled insecure_* and needs a written reason.

# Threads that carry connections; 0 is one for each core.
shards = 1

# MQTT over TLS 1.3 on every address of this machine.
# A device shows its certificate; who shows none needs a name and a password.
[[listeners]]
kind = "tls"
host = "0.0.0.0"
port = 8883
client_certificates = "optional"   # "required" turns passwords off, "none" certificates

# Plaintext is for programs on this machine only; uncomment it for tools without TLS.
# [[listeners]]
# kind = "tcp"
# host = "127.0.0.1"
# port = 1883

# What a peer may ask for. These are the defaults: uncomment a line to change it.
[limits]
"""
