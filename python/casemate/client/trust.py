"""Whom a client trusts and what it shows: the TLS context that verifies a broker."""

from __future__ import annotations

import ssl
from pathlib import Path

from casemate.client.explain import words_of
from casemate.errors import Untrusted

MQTT = "mqtt"
HTTP = "http/1.1"
"""A WebSocket begins as HTTP; a proxy that reads ALPN must know which."""


_KEY_BYTES_MAX = 65_536


def trust(
    ca_file: str | Path | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
    *,
    ca_path: str | Path | None = None,
    alpn: str = MQTT,
) -> ssl.SSLContext:
    """Makes a TLS context that verifies the broker and its name.

    Args:
        ca_file: PEM file of the authorities to trust; None with no `ca_path` trusts the system's.
        cert_file: PEM file of this client's certificate and its chain; None shows none.
        key_file: PEM file of its private key; None where `cert_file` holds it.
        ca_path: Folder of such files, one authority in each, named as `openssl rehash` does.
        alpn: What is spoken inside, as the broker is told: `mqtt`, or `http/1.1` for WebSocket.

    Raises:
        Untrusted: A file is missing, is no PEM, or certificate and key do not fit.

    Example:
        ```python
        from casemate.client import trust
        from casemate.errors import Untrusted

        try:
            trust(ca_file="nowhere.crt")
        except Untrusted as error:
            print(error)  # the CA file nowhere.crt cannot be used: no such file or directory
        ```
    """
    if ca_path is not None and not Path(ca_path).is_dir():
        # OpenSSL itself looks into the folder only while it verifies, and says nothing of this.
        raise Untrusted(f"the folder of CAs {ca_path} cannot be used", cause="no such folder")
    try:
        context = ssl.create_default_context(
            cafile=None if ca_file is None else str(ca_file),
            capath=None if ca_path is None else str(ca_path),
        )
    except (OSError, ssl.SSLError) as error:
        raise Untrusted(
            f"the CA file {ca_file} cannot be used",
            cause=words_of(error),
            hint="name the PEM file of the authority that issued the broker's certificate",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([alpn])
    if key_file is not None and cert_file is None:
        raise Untrusted("a private key was given without its certificate")
    if cert_file is not None:
        try:
            # An encrypted key must fail rather than ask on a terminal that nobody watches.
            context.load_cert_chain(str(cert_file), key_file and str(key_file), password="")
        except (OSError, ssl.SSLError) as error:
            if _is_encrypted(Path(key_file or cert_file)):
                raise Untrusted(
                    f"the key {key_file or cert_file} is encrypted, and nobody is asked for it",
                    hint='write it without a passphrase: "openssl pkey -in KEY -out NEW"',
                ) from error
            raise Untrusted(
                f"the client certificate {cert_file} cannot be used",
                cause=words_of(error),
                hint="check that both files are PEM and that the key belongs to the certificate",
            ) from error
    return context


def _is_encrypted(key: Path) -> bool:
    """Says whether a key that OpenSSL has refused is one that needs a passphrase."""
    try:
        with key.open("rb") as source:
            return b"ENCRYPTED" in source.read(_KEY_BYTES_MAX)
    except OSError:
        return False
