"""A listener: one address that the broker listens on, and what is asked of its clients."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from casemate.config import fitting
from casemate.config.section import (
    CONNECTIONS_MAX,
    Reason,
    Section,
    admit_path,
    contradiction,
    strip_reason,
)
from casemate.config.web import WS_PATH, admit_origins, admit_ws_path
from casemate.errors import CasemateError
from casemate.names import admit_listener_name, admit_role_name

SOCKET_MODE = "0600"
SOCKETS_PATH_BYTES_MAX = 107
"""What the system's address of a unix socket holds, without the zero at its end."""

_NETWORKS_MAX = 64
_PREFIX_MIN = {4: 8, 6: 7}
"""The widest private networks, 10.0.0.0/8 and fc00::/7: what is wider holds strangers."""

_OTHERS_MAY_CONNECT = 0o022
_OWNER_MAY_CONNECT = 0o600

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Listener(Section):
    """Describes one address that the broker listens on.

    Attributes:
        kind: `tls` (MQTT over TLS 1.3), `tcp` (MQTT in plaintext), `wss` (MQTT over WebSocket
            and TLS 1.3), `ws` (over WebSocket in plaintext) or `unix` (MQTT over a socket in the
            file system).
        name: 1–64 characters, unique, for logs and events; absent: the kind, counted where there
            are several.
        host: IPv4 or IPv6 address, or `localhost`, which is read as 127.0.0.1. Names are not
            looked up: what was checked here must be what is bound. Not for `unix`.
        port: 0–65535; 0 lets the system choose a free one. Not for `unix`.
        socket: Path of a `unix` listener's socket, relative to the home.
        mode: Rights on that socket, octal in quotes; whoever may write to it may connect.
        client_certificates: Whether a TLS client shows a certificate: `none`, `optional`
            (default with TLS; who shows none needs a password) or `required`.
        certificate: PEM file with the server's certificate and its chain, relative to the home.
        key: PEM file with its private key, relative to the home; set together with it.
        client_ca: PEM file with the authorities whose client certificates count here, in place
            of the home's own; who they are is still decided by the accounts.
        path: Path of the WebSocket, `/mqtt` where nothing is said.
        origins: Origins of the pages that may connect, such as `https://app.example`; none:
            origins are not checked.
        proxy_from: Networks of load balancers, which must send a PROXY header; from anywhere
            else none is read.
        max_connections: Connections of this listener at a time, 1–1,000,000; absent: as many as
            the broker has.
        anonymous_role: Role of clients that prove nothing; absent: they are refused.
        insecure_plaintext: Written reason, 10–500 characters, for plaintext off loopback.
        insecure_anonymous: Written reason for anonymous access off loopback.
        insecure_tls12: Written reason for TLS 1.2 beside TLS 1.3.
        insecure_proxy_from_anywhere: Written reason for a network in `proxy_from` that is wider
            than any private one.
        insecure_socket_mode: Written reason for a socket that group or others may write to.
    """

    kind: Literal["tls", "tcp", "wss", "ws", "unix"]
    name: StrictStr | None = None
    host: StrictStr = "127.0.0.1"
    port: Annotated[int, Field(strict=True, ge=0, le=65_535)] = 0
    socket: Path | None = None
    mode: StrictStr = SOCKET_MODE
    client_certificates: Literal["none", "optional", "required"] = "none"
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    path: StrictStr | None = None
    origins: tuple[StrictStr, ...] = ()
    proxy_from: tuple[StrictStr, ...] = ()
    max_connections: Annotated[int, Field(strict=True, ge=1, le=CONNECTIONS_MAX)] | None = None
    anonymous_role: StrictStr | None = None
    insecure_plaintext: Reason | None = None
    insecure_anonymous: Reason | None = None
    insecure_tls12: Reason | None = None
    insecure_proxy_from_anywhere: Reason | None = None
    insecure_socket_mode: Reason | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_by_kind(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic hands over anything.
        if not isinstance(values, Mapping):
            return values
        return {**_usual(values.get("kind")), **values}

    @field_validator("name")
    @classmethod
    def _admit_name(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                admit_listener_name(name)
            except CasemateError as error:
                raise PydanticCustomError(
                    "listener", "expected a name", {"hint": error.hint}
                ) from error
        return name

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

    @field_validator("mode")
    @classmethod
    def _admit_mode(cls, mode: str) -> str:
        digits = mode.removeprefix("0")
        if len(digits) != 3 or not set(digits) <= set("01234567"):
            raise PydanticCustomError(
                "mode",
                "expected three octal digits in quotes",
                {"hint": f'use "{SOCKET_MODE}" (the owner alone) or "0660" (its group too)'},
            )
        if int(digits, 8) & _OWNER_MAY_CONNECT != _OWNER_MAY_CONNECT:
            raise PydanticCustomError(
                "mode",
                "expected a mode that lets the owner read and write",
                {"hint": f'use "{SOCKET_MODE}"'},
            )
        return f"0{digits}"

    @field_validator("proxy_from")
    @classmethod
    def _admit_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        if len(networks) > _NETWORKS_MAX:
            raise PydanticCustomError(
                "networks",
                "expected at most {most} networks",
                {"most": _NETWORKS_MAX, "found": len(networks), "hint": "join neighbours into one"},
            )
        return tuple(_network(position, text) for position, text in enumerate(networks))

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

    _admit_path = field_validator("certificate", "key", "client_ca", "socket", mode="before")(
        admit_path
    )
    _admit_ws_path = field_validator("path")(admit_ws_path)
    _admit_origins = field_validator("origins")(admit_origins)
    _strip_reason = field_validator(
        "insecure_plaintext",
        "insecure_anonymous",
        "insecure_tls12",
        "insecure_proxy_from_anywhere",
        "insecure_socket_mode",
        mode="before",
    )(strip_reason)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        fitting.refuse_misfits(self.kind, self._said())
        if (self.certificate is None) != (self.key is None):
            raise contradiction(
                "certificate" if self.key is None else "key",
                "certificate and key are set together or not at all",
                "set both, or neither to use the home's own",
            )
        if self.client_ca is not None and self.client_certificates == "none":
            raise contradiction(
                "client_ca",
                'with client_certificates = "none" nobody is asked for a certificate',
                'use client_certificates = "optional" or "required", or remove the line',
            )
        self._refuse_plaintext()
        self._refuse_open_doors()
        self._refuse_open_proxy()
        self._refuse_open_socket()
        return self

    def _said(self) -> set[str]:
        """Gives the options that say something; "none" for certificates asks for nothing."""
        said = {name for name in self.model_fields_set if getattr(self, name) not in (None, ())}
        return said - ({"client_certificates"} if self.client_certificates == "none" else set())

    def _refuse_plaintext(self) -> None:
        if self.kind not in ("tcp", "ws") or self.is_loopback:
            return
        if self.insecure_plaintext is None:
            encrypted = "wss" if self.kind == "ws" else "tls"
            raise contradiction(
                "host",
                f"a plaintext listener on {self.host} shows every password and message",
                f'use kind = "{encrypted}", or host = "127.0.0.1", or give the reason in '
                'insecure_plaintext = "…"',
            )

    def _refuse_open_doors(self) -> None:
        if self.anonymous_role is None:
            if self.insecure_anonymous is not None:
                raise contradiction(
                    "insecure_anonymous",
                    "anonymous access needs a role",
                    'add anonymous_role = "…", or remove the line',
                )
            return
        if self.client_certificates == "required":
            raise contradiction(
                "anonymous_role",
                "a listener that requires certificates has no anonymous clients",
                'use client_certificates = "optional", or remove the line',
            )
        if not self.is_loopback and self.insecure_anonymous is None:
            raise contradiction(
                "anonymous_role",
                f"anonymous access on {self.host} lets anybody in",
                'use host = "127.0.0.1", or give the reason in insecure_anonymous = "…"',
            )

    def _refuse_open_proxy(self) -> None:
        wide = self.widest_proxy
        if wide is None:
            if self.insecure_proxy_from_anywhere is not None:
                raise contradiction(
                    "insecure_proxy_from_anywhere",
                    "proxy_from names no network that is too wide",
                    "remove the line",
                )
        elif self.insecure_proxy_from_anywhere is None:
            raise contradiction(
                "proxy_from",
                f"whoever connects from {wide} could claim any address",
                "name the addresses of your load balancers, or give the reason in "
                'insecure_proxy_from_anywhere = "…"',
            )

    def _refuse_open_socket(self) -> None:
        if not self.mode_bits & _OTHERS_MAY_CONNECT:
            if self.insecure_socket_mode is not None:
                raise contradiction(
                    "insecure_socket_mode",
                    f'mode = "{self.mode}" lets only the owner connect',
                    "remove the line",
                )
        elif self.insecure_socket_mode is None:
            raise contradiction(
                "mode",
                f'mode = "{self.mode}" lets other users of this machine connect',
                f'use mode = "{SOCKET_MODE}", or give the reason in insecure_socket_mode = "…"',
            )

    def usual(self) -> dict[str, object]:
        """Gives the defaults that depend on the kind of the listener."""
        return _usual(self.kind)

    def has(self, option: str) -> bool:
        """Tells whether a listener of this kind has an option.

        Args:
            option: Its key.
        """
        return fitting.fits(self.kind, option)

    @property
    def is_loopback(self) -> bool:
        """Tells whether only this machine can reach the listener."""
        return self.kind == "unix" or ipaddress.ip_address(self.host).is_loopback

    @property
    def is_encrypted(self) -> bool:
        """Tells whether the listener speaks TLS."""
        return self.kind in ("tls", "wss")

    @property
    def is_web(self) -> bool:
        """Tells whether the listener speaks WebSocket."""
        return self.kind in ("ws", "wss")

    @property
    def mode_bits(self) -> int:
        """The rights on the socket as a number."""
        return int(self.mode, 8)

    @property
    def widest_proxy(self) -> Network | None:
        """The widest network of `proxy_from`, joined with its neighbours, if it is too wide."""
        networks = [ipaddress.ip_network(text) for text in self.proxy_from]
        # Joined first: two halves of everything are everything.
        joined: list[Network] = [
            *ipaddress.collapse_addresses(
                one for one in networks if isinstance(one, ipaddress.IPv4Network)
            ),
            *ipaddress.collapse_addresses(
                one for one in networks if isinstance(one, ipaddress.IPv6Network)
            ),
        ]
        wide = [one for one in joined if one.prefixlen < _PREFIX_MIN[one.version]]
        return min(wide, key=lambda one: one.prefixlen, default=None)


def _usual(kind: object) -> dict[str, object]:
    filled: dict[str, object] = {}
    if kind in ("tls", "wss"):
        filled["client_certificates"] = "optional"
    if kind in ("ws", "wss"):
        filled["path"] = WS_PATH
    return filled


def _network(position: int, text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        hint = 'write "10.0.0.5" or "10.0.0.0/24"'
        with contextlib.suppress(ValueError):
            # Bits behind the prefix: an address of the network was meant, or a longer prefix.
            hint = f'did you mean "{ipaddress.ip_network(text, strict=False)}"?'
        raise PydanticCustomError(
            "network",
            "expected a network",
            {"place": (position,), "found": text, "hint": hint},
        ) from error
