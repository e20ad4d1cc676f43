"""A listener: one address that the broker listens on, and what is asked of its clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from casemate.config.section import Reason, Section, contradiction
from casemate.errors import CasemateError
from casemate.names import admit_role_name

_LATER_KINDS = ("ws", "wss")


class Listener(Section):
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
    insecure_plaintext: Reason | None = None
    insecure_anonymous: Reason | None = None
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
    def _refusecontradictions(self) -> Self:
        if self.kind == "tcp":
            self._refuse_tls_options()
        elif self.insecure_plaintext is not None:
            raise contradiction(
                "insecure_plaintext", "a tls listener is never plaintext", "remove the line"
            )
        if (self.certificate is None) != (self.key is None):
            raise contradiction(
                "certificate" if self.key is None else "key",
                "certificate and key are set together or not at all",
                "set both, or neither to use the home's own",
            )
        self._refuse_open_doors()
        return self

    def _refuse_tls_options(self) -> None:
        for option in ("certificate", "key"):
            if getattr(self, option) is not None:
                raise contradiction(option, "a tcp listener has no certificate", 'use kind = "tls"')
        if self.client_certificates != "none":
            raise contradiction(
                "client_certificates",
                "a tcp listener cannot ask for certificates",
                'use kind = "tls"',
            )
        if not self.is_loopback and self.insecure_plaintext is None:
            raise contradiction(
                "host",
                f"a plaintext listener on {self.host} shows every password and message",
                'use kind = "tls", or host = "127.0.0.1", or give the reason in '
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

    @property
    def is_loopback(self) -> bool:
        """Tells whether only this machine can reach the listener."""
        return ipaddress.ip_address(self.host).is_loopback
