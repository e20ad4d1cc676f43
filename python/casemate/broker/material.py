"""Certificate, key and authorities that a program gives itself: from memory, or from its files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from casemate import files
from casemate.config import Configuration, Listener
from casemate.errors import BrokerError, CasemateError

Given = bytes | str | os.PathLike[str]
"""PEM as bytes, or the path of a PEM file."""

Source = bytes | Path

_PEM_BEGIN = "-----BEGIN "
_ENCRYPTED = b"ENCRYPTED"


@dataclass(frozen=True, slots=True)
class Material:
    """Stands in place of what the listeners with TLS name as their files; never written to disk.

    Attributes:
        certificate: The server's certificate and its chain, leaf first; None leaves each listener
            its own.
        key: Its private key; None exactly where `certificate` is.
        client_ca: Authorities whose client certificates count; None leaves each listener its own,
            and those that name none the home's.
    """

    certificate: Source | None = None
    key: Source | None = field(default=None, repr=False)
    client_ca: Source | None = None

    @classmethod
    def of(cls, certificate: Given | None, key: Given | None, client_ca: Given | None) -> Self:
        """Takes what a caller has given; files are read later, when they are needed.

        Raises:
            ValueError: One of certificate and key is missing, something is empty, or PEM was
                given as text, which would be read as a path.
        """
        if (certificate is None) != (key is None):
            raise ValueError("certificate and key are given together")
        return cls(
            _source("certificate", certificate),
            _source("key", key),
            _source("client_ca", client_ca),
        )

    def replaced(
        self, certificate: Given | None, key: Given | None, client_ca: Given | None
    ) -> Material:
        """Gives what counts after a reload: what is given now, else what was; raises as `of`."""
        given = Material.of(certificate, key, client_ca)
        return Material(
            given.certificate or self.certificate,
            given.key or self.key,
            given.client_ca or self.client_ca,
        )

    def require_of_use(self, configuration: Configuration) -> None:
        """Refuses what no listener would use: whoever gave it believes that it is in force.

        Raises:
            BrokerError: No listener speaks TLS, or none asks for client certificates.
        """
        encrypted = [one for one in configuration.listeners if one.is_encrypted]
        if self.certificate is not None and not encrypted:
            raise BrokerError(
                "a certificate was given, and no listener speaks TLS",
                hint='add a listener of kind "tls" or "wss", or leave the certificate out',
            )
        asked = [one for one in encrypted if one.client_certificates != "none"]
        if self.client_ca is not None and not asked:
            raise BrokerError(
                "client_ca was given, and no listener asks for client certificates",
                hint='set client_certificates to "optional" or "required", or leave it out',
            )

    def certificate_of(self, described: Listener) -> Source | None:
        """The certificate that a listener presents."""
        return self.certificate or described.certificate

    def key_of(self, described: Listener) -> Source | None:
        """The key that belongs to it."""
        return self.key or described.key

    def client_ca_of(self, described: Listener) -> Source | None:
        """Its authorities; None where they are the home's."""
        return self.client_ca or described.client_ca

    def of_listener(self, described: Listener) -> list[Source]:
        """Everything that a listener is made of, in order."""
        named = (
            self.certificate_of(described),
            self.key_of(described),
            self.client_ca_of(described),
        )
        return [source for source in named if source is not None]


def read(source: Source) -> bytes:
    """Gives the PEM of a source.

    Raises:
        BrokerError: The file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        return files.read_bounded(source)
    except OSError as error:
        raise BrokerError(f"{source} cannot be read", cause=files.reason(error)) from error
    except CasemateError as error:
        raise BrokerError(str(error), hint=error.hint) from error


def read_key(source: Source) -> bytes:
    """Gives the PEM of a private key.

    Raises:
        BrokerError: The file cannot be read, or the key is encrypted.
    """
    pem = read(source)
    if _ENCRYPTED in pem:
        place = "the private key" if isinstance(source, bytes) else str(source)
        raise BrokerError(
            f"{place} is encrypted",
            hint="decrypt it first, in memory: load_pem_private_key and private_bytes of "
            "cryptography, or openssl pkey",
        )
    return pem


def _source(name: str, given: Given | None) -> Source | None:
    if given is None:
        return None
    if isinstance(given, bytes | bytearray | memoryview):
        if not bytes(given).strip():
            raise ValueError(f"{name} is empty")
        return bytes(given)
    path = os.fspath(given)
    if path.lstrip().startswith(_PEM_BEGIN):
        # Not shown: it may be a key.
        raise ValueError(f"{name} is PEM as text: give bytes, as text is the path of a file")
    if not path:
        raise ValueError(f"{name} is empty")
    return Path(path).absolute()
