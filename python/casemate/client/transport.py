"""The way to a broker: TCP or verified TLS, and in words what went wrong on it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from casemate.errors import ClientError, ConnectionLost, DeadlinePassed, Unreachable, Untrusted

TLS_PORT = 8883
PLAIN_PORT = 1883

READ_BYTES = 65_536
"""Bytes asked for at once; also what may arrive beyond a full queue."""

# Verification results of X.509 that get words of their own; the numbers are OpenSSL's.
_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
_NAME_MISMATCH = (62, 64)


@dataclass(frozen=True, slots=True)
class Address:
    """Names the broker and how it is reached.

    Attributes:
        host: Name or address; with TLS the certificate must be valid for it.
        port: 1–65535.
        tls: Who is trusted and what is shown; None is plaintext.
        plaintext_anywhere: Plaintext is accepted off loopback too.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    plaintext_anywhere: bool = False

    def __str__(self) -> str:
        """Gives `host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def trust(
    ca_file: str | Path | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
) -> ssl.SSLContext:
    """Makes a TLS context that verifies the broker and its name.

    Args:
        ca_file: PEM file of the authorities to trust; None trusts the system's.
        cert_file: PEM file of this client's certificate and its chain; None shows none.
        key_file: PEM file of its private key; None where `cert_file` holds it.

    Raises:
        Untrusted: A file is missing, is no PEM, or certificate and key do not fit.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Untrusted(
            f"the CA file {ca_file} cannot be used",
            cause=_words(error),
            hint="name the PEM file of the authority that issued the broker's certificate",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["mqtt"])
    if key_file is not None and cert_file is None:
        raise Untrusted("a private key was given without its certificate")
    if cert_file is not None:
        try:
            # An encrypted key must fail rather than ask on a terminal that nobody watches.
            context.load_cert_chain(str(cert_file), key_file and str(key_file), password="")
        except (OSError, ssl.SSLError) as error:
            raise Untrusted(
                f"the client certificate {cert_file} cannot be used",
                cause=_words(error),
                hint="check that both files are PEM and that the key belongs to the certificate",
            ) from error
    return context


def is_loopback(host: str) -> bool:
    """Says whether a host can only be this machine, without looking names up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def open_transport(
    address: Address, timeout_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects, and for TLS verifies the broker, before anything is sent.

    Args:
        address: Where to.
        timeout_s: Seconds for name, TCP and TLS together.

    Raises:
        Unreachable: The name is unknown, or nothing listens there.
        Untrusted: TLS failed, the certificate most of all; nothing was sent.
        DeadlinePassed: It took too long.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                address.host,
                address.port,
                ssl=address.tls,
                server_hostname=address.host if address.tls else None,
                limit=READ_BYTES,
            )
    except TimeoutError as error:
        raise DeadlinePassed(
            f"{address} did not answer within {timeout_s:g} s",
            hint="check the address, the port and what filters packets between",
        ) from error
    except OSError as error:
        raise explain(error, address) from error
    peer = writer.get_extra_info("peername")
    if address.tls is None and not address.plaintext_anywhere and not _is_local(peer):
        # "localhost" is a name, and a name may have been made to point elsewhere.
        writer.transport.abort()
        raise Untrusted(
            f"{address} is not on this machine, and the connection would be in plaintext",
            hint="use TLS, or say insecure_plaintext=True if everybody on the way may read it",
        )
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return reader, writer


def explain(error: OSError, address: Address) -> ClientError:
    """Gives the client's error for one of the system's or of TLS.

    Source: OpenSSL's verification codes, RFC 8446 §6.2 for the alerts.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, address)
    if isinstance(error, ssl.SSLError):
        return _explain_tls(error, address)
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f'the name "{address.host}" is unknown',
            cause=_words(error),
            hint="check the spelling of the host",
        )
    if isinstance(error, ConnectionRefusedError) or _all_refused(error):
        return Unreachable(
            f"nothing listens on {address}",
            hint="is the broker running, and is this its port?",
        )
    if isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
        return ConnectionLost(f"{address} closed the connection", cause=_words(error))
    return Unreachable(f"{address} cannot be reached", cause=_words(error))


def _explain_certificate(error: ssl.SSLCertVerificationError, address: Address) -> ClientError:
    code = error.verify_code
    words = (error.verify_message or "").rstrip(".")
    if code in _NAME_MISMATCH:
        return Untrusted(
            f'the broker\'s certificate is not valid for "{address.host}"',
            cause=words,
            hint="use a host name that the certificate holds, or issue one that holds this name",
        )
    if code == _EXPIRED:
        return Untrusted(
            f"the certificate of {address} has expired",
            cause=words,
            hint="renew it at the broker; if it is new, check this machine's clock",
        )
    if code == _NOT_YET_VALID:
        return Untrusted(
            f"the certificate of {address} is not valid yet",
            cause=words,
            hint="check this machine's clock",
        )
    if code in _UNKNOWN_ISSUER:
        return Untrusted(
            f"the certificate of {address} was issued by an authority that is not trusted here",
            cause=words,
            hint="give the broker's own CA file, and compare its fingerprint with the broker's",
        )
    return Untrusted(f"the certificate of {address} is not valid", cause=words)


def _explain_tls(error: ssl.SSLError, address: Address) -> ClientError:
    reason = (error.reason or "").upper()
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER_FAILURE" in reason:
        return Untrusted(
            f"{address} does not speak TLS",
            cause=_words(error),
            hint="this may be the plaintext port; TLS usually listens on 8883",
        )
    if "CERTIFICATE_REQUIRED" in reason:
        return Untrusted(
            f"{address} demands a client certificate",
            cause=_words(error),
            hint="give the certificate and key of a device that the broker knows",
        )
    if "ALERT" in reason:
        return Untrusted(
            f"{address} refused this client's certificate or its kind of TLS",
            cause=_words(error),
            hint="check that the certificate was issued by the broker's CA and has not expired",
        )
    if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError):
        return ConnectionLost(f"{address} closed the connection", cause=_words(error))
    return Untrusted(f"TLS with {address} failed", cause=_words(error))


def _all_refused(error: OSError) -> bool:
    """Says whether each of several addresses of a name refused, as asyncio words it."""
    return error.errno is None and "Connect call failed" in str(error)


def _is_local(peer: object) -> bool:
    return isinstance(peer, tuple) and is_loopback(str(peer[0]))


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
