"""Whom `casemate bench` loads: one address, and only with the consent of who sits here."""

from __future__ import annotations

import ipaddress
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from casemate.cli import console
from casemate.cli.connection import Reach
from casemate.cli.console import WrongUsage
from casemate.client.address import PLAIN_PORT, TLS_PORT, WS_PORT, WSS_PORT
from casemate.errors import Unreachable, Untrusted
from casemate.native import LoadTarget

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Names the broker: as it was asked for, and the one address that anything is sent to."""

    host: str
    address: str
    port: int
    transport: str
    version: int

    @property
    def is_loopback(self) -> bool:
        """True where it can only be this machine."""
        return ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        """Gives the host, with its address where that says more, and the port."""
        host = console.printable(self.host)
        shown = host if host == self.address else f"{host} ({self.address})"
        return f"{shown} port {self.port}"


def aim(reach: Reach, *, resume: bool) -> tuple[LoadTarget, Place]:
    """Reads how the broker is reached, and looks its name up once.

    Args:
        reach: What the command line says; what a generator cannot do is refused.
        resume: Resume TLS sessions.

    Raises:
        WrongUsage: An option means nothing to a load, or two contradict each other.
        Unreachable: Nobody knows the host.
        Untrusted: A file of the TLS material cannot be used.
    """
    known = reach.arguments()
    _refuse_what_means_nothing(reach, known)
    host = str(known["host"])
    context = known["tls"]
    if resume and not context:
        raise WrongUsage("there is no TLS to resume in plaintext")
    path = known.get("websocket_path")
    ports = (PLAIN_PORT, TLS_PORT) if path is None else (WS_PORT, WSS_PORT)
    port = known.get("port") or ports[bool(context)]
    address = _look_up(host, port)
    names = ("tcp", "tls") if path is None else ("ws", "wss")
    place = Place(host, address, port, names[bool(context)], known["version"])
    chain, key = _own(reach)
    password = known["password"]
    target = LoadTarget(
        address,
        port,
        version=known["version"],
        client_id=f"{known['client_id'] or 'bench'}-",
        username=known.get("username"),
        password=password.encode() if isinstance(password, str) else password,
        keep_alive_s=known["keep_alive_s"],
        server_name=host if context else None,
        trusted_pem=_trusted(context, reach) if context else b"",
        chain_pem=chain,
        key_pem=key,
        resume=resume,
        websocket_host=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        websocket_path=path,
    )
    return target, place


def admit(place: Place, *, yes: bool, as_json: bool) -> None:
    """Asks before a broker elsewhere is loaded: to one that does not expect it, it is an attack.

    Args:
        place: Where it is.
        yes: It was said that it may be.
        as_json: How the warning is written.

    Raises:
        WrongUsage: Nobody can be asked.
        typer.Abort: The answer was no.
    """
    if place.is_loopback:
        return
    if yes:
        console.warn(f"this loads {place}, which is not this machine", as_json=as_json)
        return
    if not sys.stdin.isatty():
        raise WrongUsage(
            f"{place} is not this machine, and wants --yes",
            hint="load is an attack on a broker that does not expect it; say it where it is yours",
        )
    typer.confirm(
        f"{place} is not this machine. Load is an attack on a broker that does not expect it.\n"
        "Is it yours to load?",
        abort=True,
        err=True,
    )


def _refuse_what_means_nothing(reach: Reach, known: dict[str, Any]) -> None:
    """Refuses what a client can do and a generator cannot, rather than to leave it out."""
    refused = {
        "--unix": known.get("unix_socket"), "-A": reach.local_address, "--proxy": reach.proxy,
        "-D": reach.properties, "-c": reach.keep_session, "-x": reach.session_expiry,
        "--will-topic": reach.will_topic, "--tls-alpn": reach.alpn, "--ciphers": reach.ciphers,
        "--tls-version": reach.tls_version, "headers in the URL": known.get("websocket_headers"),
    }  # fmt: skip
    for name in (name for name, value in refused.items() if value):
        raise WrongUsage(f"{name} means nothing to a load", hint="leave it out")


def _look_up(host: str, port: int) -> str:
    import socket

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(
            f"the host {console.printable(host)} is not known",
            cause=(error.strerror or "").lower(),
            hint="check the spelling of -h",
        ) from error
    # IPv4 first where there are both, as brokers on loopback seldom listen on ::1.
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    return str(found[0][4][0])


def _own(reach: Reach) -> tuple[bytes | None, bytes | None]:
    """Gives what the clients show of themselves, in PEM."""
    certificate, key = reach.cert_file, reach.key_file or reach.cert_file
    if reach.identity is not None:
        from casemate.cli.local import identity_files

        files = identity_files(console.home_folder(reach.home), reach.identity)
        certificate, key = files.certificate, files.key
    if certificate is None or key is None:
        return None, None
    return _read(certificate), _read(key)


def _trusted(context: ssl.SSLContext, reach: Reach) -> bytes:
    """Gives the authorities that the clients trust, in PEM: those that a client's context has.

    A folder of them is read whole, as OpenSSL looks into it only when it meets a certificate.
    """
    loaded = [ssl.DER_cert_to_PEM_cert(one) for one in context.get_ca_certs(binary_form=True)]
    folder = reach.ca_path
    if folder is None and (reach.system_cas or not loaded):
        usual = ssl.get_default_verify_paths().capath
        folder = Path(usual) if usual and not reach.ca_file else None
    return "".join(loaded).encode() + b"".join(_of_folder(folder))


def _of_folder(folder: Path | None) -> Iterator[bytes]:
    if folder is None:
        return
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size <= _FILE_BYTES_MAX:
            content = _read(path)
            if content.startswith(_CERTIFICATE):
                yield content


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Untrusted(
            f"the file {file} cannot be read", cause=(error.strerror or "").lower()
        ) from error
