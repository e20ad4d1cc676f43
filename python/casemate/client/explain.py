"""What went wrong on the way to a broker, in words that help."""

from __future__ import annotations

import errno
import re
import socket
import ssl

from casemate.client.address import Address
from casemate.errors import ClientError, ConnectionLost, Unreachable, Untrusted

# Verification results of X.509 that get words of their own; the numbers are OpenSSL's.
_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
_NAME_MISMATCH = (62, 64)


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
            cause=words_of(error),
            hint="check the spelling of the host",
        )
    if isinstance(error, ConnectionRefusedError) or _all_refused(error):
        own = "port" if address.unix_socket is None else "socket"
        return Unreachable(
            f"nothing listens on {address}",
            hint=f"is the broker running, and is this its {own}?",
        )
    if error.errno == errno.EADDRNOTAVAIL and address.local_address is not None:
        return Unreachable(
            f"{address.local_address} is no address of this machine",
            cause=words_of(error),
            hint="name one that this machine has, or leave it out",
        )
    if isinstance(error, FileNotFoundError):
        return Unreachable(
            f"there is no socket {address}", hint="is the broker running, and is this its socket?"
        )
    if isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError):
        return ConnectionLost(
            f"{address} closed the connection",
            cause=words_of(error),
            hint="does it speak TLS there, or plaintext?" if address.tls else "",
        )
    return Unreachable(f"{address} cannot be reached", cause=words_of(error))


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
            cause=words_of(error),
            hint="this may be the plaintext port; TLS usually listens on 8883",
        )
    if "CERTIFICATE_REQUIRED" in reason:
        return Untrusted(
            f"{address} demands a client certificate",
            cause=words_of(error),
            hint="give the certificate and key of a device that the broker knows",
        )
    if "NO_APPLICATION_PROTOCOL" in reason or "no application protocol" in str(error):
        return Untrusted(
            f"{address} does not speak, within TLS, what this client would",
            cause=words_of(error),
            hint="is this a port for MQTT, or for a WebSocket?",
        )
    if "ALERT_PROTOCOL_VERSION" in reason:
        return Untrusted(
            f"{address} speaks no version of TLS that is offered to it",
            cause=words_of(error),
            hint="offer TLS 1.3, or have the broker allow TLS 1.2",
        )
    if "ALERT" in reason:
        return Untrusted(
            f"{address} refused this client's certificate or its kind of TLS",
            cause=words_of(error),
            hint="check that the certificate was issued by the broker's CA and has not expired",
        )
    if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError):
        return ConnectionLost(f"{address} closed the connection", cause=words_of(error))
    return Untrusted(f"TLS with {address} failed", cause=words_of(error))


def _all_refused(error: OSError) -> bool:
    """Says whether each of several addresses of a name refused, as asyncio words it."""
    return error.errno is None and "Connect call failed" in str(error)


def words_of(error: BaseException) -> str:
    """Gives what the system or OpenSSL says of an error, for the end of a sentence."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        # OpenSSL names its own file and line where it has no reason.
        return re.sub(r"^\[ssl\] | \(_ssl\.c:\d+\)$", "", error.strerror.lower())
    if isinstance(error, ConnectionResetError):
        # asyncio raises it without the system's words.
        return "connection reset by peer"
    return str(error) or type(error).__name__
