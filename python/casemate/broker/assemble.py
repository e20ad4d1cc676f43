"""From what a home says to what the engine takes: the one place where the rooms meet."""

from __future__ import annotations

import os
from typing import Any

from casemate import native
from casemate.broker import material
from casemate.broker.material import Material
from casemate.config import Configuration, Limits, Listener
from casemate.errors import BrokerError, PolicyError, PortInUse
from casemate.identity import Accounts
from casemate.policy import Policy

SHARDS_MAX = 64

_CONNECT_BYTES_MAX = 131_072
"""Largest packet of somebody who has proven nothing yet, in bytes."""

_LEGACY_EXPIRY_S = 86_400
"""A session of MQTT 3.1.1 names no end; it gets a day, or less where the operator says so."""

_SHARED_LIMITS = ("connections_max", "sessions_max", "retained_max", "retained_bytes_max")
"""Limits of the whole broker, which the engine counts in each shard."""


def shard_count(configuration: Configuration) -> int:
    """Gives the number of shards, 1-64; 0 in the configuration means one for each core."""
    wanted = configuration.shards or len(os.sched_getaffinity(0))
    return min(max(wanted, 1), SHARDS_MAX)


def listener(
    name: str, described: Listener, client_ca_pem: bytes, given: Material
) -> native.Listener:
    """Makes a listener; the files of its certificate are read now.

    Args:
        name: Unique among the listeners.
        described: Valid, with absolute paths.
        client_ca_pem: Authorities whose client certificates count, where it names none itself.
        given: Stands in place of what it names itself.

    Raises:
        BrokerError: Certificate, key or authorities cannot be read.
    """
    is_encrypted = described.is_encrypted
    encryption = _encryption(name, described, client_ca_pem, given) if is_encrypted else {}
    is_unix = described.socket is not None
    return native.Listener(
        name,
        "" if is_unix else described.host,
        0 if is_unix else described.port,
        unix_path=str(described.socket) if is_unix else None,
        unix_mode=described.mode_bits,
        anonymous_role=described.anonymous_role,
        websocket_path=described.path,
        websocket_origins=described.origins,
        proxy_from=described.proxy_from,
        max_connections=described.max_connections,
        **encryption,
    )


def _encryption(
    name: str, described: Listener, client_ca_pem: bytes, given: Material
) -> dict[str, Any]:
    """Gives what TLS needs; a file that is missing refuses, and never opens a plaintext door."""
    certificate, key = given.certificate_of(described), given.key_of(described)
    if certificate is None or key is None:
        raise BrokerError(f"the listener {name} has no certificate")
    authorities = given.client_ca_of(described)
    trusted = client_ca_pem if authorities is None else material.read(authorities)
    return {
        "certificate_pem": material.read(certificate),
        "key_pem": material.read_key(key),
        "client_ca_pem": None if described.client_certificates == "none" else trusted,
        "client_certificates": described.client_certificates,
        "tls12": described.insecure_tls12 is not None,
    }


def limits(described: Limits, shards: int) -> dict[str, int]:
    """Gives the engine's settings by name.

    Args:
        described: As configured, for the whole broker.
        shards: How many share the limits of the whole.
    """
    settings = described.model_dump()
    settings["connect_deadline_ms"] = settings.pop("connect_deadline_s") * 1_000
    settings["connect_bytes_max"] = min(_CONNECT_BYTES_MAX, described.packet_bytes_max)
    settings["session_expiry_s_legacy"] = min(_LEGACY_EXPIRY_S, described.session_expiry_s_max)
    for name in _SHARED_LIMITS:
        settings[name] = -(-settings[name] // shards)
    return settings


def policy(epoch: int, read: Policy) -> native.Policy:
    """Compiles a policy.

    Raises:
        PolicyError: The engine refuses a rule that the reader let pass.
    """
    try:
        return native.Policy(epoch, read.rules())
    except native.PolicyRefused as error:
        message, role, place = error.args
        raise PolicyError(f'{place}: role "{role}": {message}', file=read.file) from error


def accounts(store: Accounts) -> list[tuple[bytes, str, list[str], int]]:
    """Gives whoever proves itself by certificate, for the engine.

    Raises:
        IdentityError: The store cannot answer.
    """
    return [
        (one.fingerprint, one.account, list(one.roles), one.not_after_s)
        for one in store.certificates()
    ]


def start_error(error: native.StartRefused, what: str = "the broker cannot start") -> BrokerError:
    """Makes the broker's error of the engine's; `what` says what it keeps from being done."""
    message, kind, _listener = error.args
    if kind == "address-in-use":
        return PortInUse(message, hint="stop the other program, or choose another port")
    return BrokerError(f"{what}: {message}", hint=_START_HINTS.get(kind, ""))


_START_HINTS = {
    "permission-denied": "ports below 1024 need a privilege; 8883 does not",
    "address-not-available": "use an address of this machine, or 0.0.0.0 for all of them",
    "key-mismatch": "the key belongs to another certificate; issue both anew",
    "socket-file": "use a path in a folder that exists, where nothing else stands",
    "listen": "use an address of this machine, or a path in a folder that exists",
    "client-ca": "client_ca names a PEM file with the certificates of authorities",
    "certificate": "a certificate is PEM, the server's own first, then its chain",
    "key": "a private key is PEM (PKCS #8, SEC1 or PKCS #1), not encrypted",
    "descriptor-limit": "raise the limit of open files (ulimit -n)",
}
