"""How `pub` and `sub` reach a broker: mosquitto's options, and `--as` for a local identity."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from casemate.cli import console

CONTEXT = {"help_option_names": ["--help"]}
"""`-h` is the host, as in mosquitto's programs."""


As = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Be this local identity; host, port and CA follow."),
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", envvar="CASEMATE_HOME", help="Home of --as (default: this folder)."),
]
Host = Annotated[str | None, typer.Option("-h", "--host", help="Broker (default: localhost).")]
Port = Annotated[
    int | None, typer.Option("-p", "--port", min=1, max=65_535, help="Port (default: 8883).")
]
ClientId = Annotated[str | None, typer.Option("-i", "--id", help="Client id.")]
Username = Annotated[str | None, typer.Option("-u", "--username", help="User name.")]
Password = Annotated[
    str | None,
    typer.Option("-P", "--pw", help="Password; others on this machine may see it here."),
]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File that holds the password.")
]
CaFile = Annotated[
    Path | None, typer.Option("--cafile", help="PEM of the CA to trust (default: the system's).")
]
CertFile = Annotated[Path | None, typer.Option("--cert", help="PEM of the client's certificate.")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="PEM of its private key.")]
Plaintext = Annotated[
    bool,
    typer.Option(
        "--insecure-plaintext", help="No TLS: everybody on the way reads and changes everything."
    ),
]
VersionOption = Annotated[
    str, typer.Option("-V", "--protocol-version", help="5, 311 or 31 (also mqttv5 …).")
]
KeepAlive = Annotated[
    int, typer.Option("-k", "--keepalive", min=0, max=65_535, help="Keep alive in seconds.")
]
KeepSession = Annotated[
    bool, typer.Option("-c", "--disable-clean-session", help="Keep the session; needs -i.")
]
SessionExpiry = Annotated[
    int | None,
    typer.Option("-x", "--session-expiry-interval", min=0, max=4_294_967_295, help="Seconds (5)."),
]
Debug = Annotated[bool, typer.Option("-d", "--debug", help="Say what happens, on stderr.")]
WillTopic = Annotated[str | None, typer.Option("--will-topic", help="Topic of the will.")]
WillPayload = Annotated[str | None, typer.Option("--will-payload", help="Payload of the will.")]
WillQos = Annotated[int, typer.Option("--will-qos", min=0, max=2, help="QoS of the will.")]
WillRetain = Annotated[bool, typer.Option("--will-retain", help="Retain the will.")]

_VERSIONS = {
    "5": 5, "mqttv5": 5, "311": 4, "4": 4, "mqttv311": 4, "31": 3, "3": 3, "mqttv31": 3,
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Reach:
    """Collects how a broker is reached; each field is an option of the command line."""

    identity: As = None
    home: HomeOption = None
    host: Host = None
    port: Port = None
    client_id: ClientId = None
    username: Username = None
    password: Password = None
    password_file: PasswordFile = None
    ca_file: CaFile = None
    cert_file: CertFile = None
    key_file: KeyFile = None
    plaintext: Plaintext = False
    version: VersionOption = "5"
    keep_alive_s: KeepAlive = 60
    keep_session: KeepSession = False
    session_expiry_s: SessionExpiry = None
    will_topic: WillTopic = None
    will_payload: WillPayload = None
    will_qos: WillQos = 0
    will_retain: WillRetain = False
    debug: Debug = False

    def arguments(self) -> dict[str, object]:
        """Gives the arguments of a `Client`.

        Raises:
            typer.BadParameter: Two options contradict each other.
            IdentityMissing: There is no such local identity.
            ConfigurationError: The password file cannot be read.
        """
        self._refuse_contradictions()
        version = _VERSIONS.get(self.version.lower())
        if version is None:
            raise typer.BadParameter("the version is 5, 311 or 31", param_hint="-V")
        arguments: dict[str, object] = {
            "host": self.host or "localhost",
            "port": self.port,
            "client_id": self.client_id or "",
            "username": self.username,
            "password": self._secret(),
            "version": version,
            "keep_alive_s": self.keep_alive_s,
            "clean_start": not self.keep_session,
            "session_expiry_s": self._session_expiry_s(),
        }
        if self.plaintext:
            arguments |= {"tls": False, "insecure_plaintext": True}
        else:
            arguments |= {
                "ca_file": self.ca_file,
                "cert_file": self.cert_file,
                "key_file": self.key_file,
            }
        if self.identity is not None:
            arguments |= self._identity()
        if self.will_topic is not None:
            arguments["will"] = self._will(self.will_topic)
        return arguments

    def _refuse_contradictions(self) -> None:
        if self.password is not None and self.password_file is not None:
            raise typer.BadParameter("give -P or --password-file, not both")
        if self.plaintext and (self.ca_file or self.cert_file or self.key_file):
            raise typer.BadParameter("certificates mean nothing with --insecure-plaintext")
        if self.plaintext and self.identity is not None:
            raise typer.BadParameter("--as proves itself by a certificate, which needs TLS")
        if self.identity is not None and (self.cert_file or self.key_file):
            raise typer.BadParameter("--as brings its own --cert and --key")
        if self.keep_session and not self.client_id and self.identity is None:
            raise typer.BadParameter("a session that is kept needs a client id: add -i")
        if self.will_topic is None and (self.will_payload or self.will_qos or self.will_retain):
            raise typer.BadParameter("a will needs --will-topic")

    def _secret(self) -> str | None:
        if self.password_file is None:
            return self.password
        return console.read_secret(self.password_file)

    def _session_expiry_s(self) -> int:
        if self.session_expiry_s is not None:
            return self.session_expiry_s
        return 86_400 if self.keep_session else 0

    def _identity(self) -> dict[str, object]:
        """Gives what a local identity knows; what was asked for by hand stands above it."""
        from casemate.cli.local import identity_files, tls_address

        home = (self.home or Path()).absolute()
        files = identity_files(home, self.identity or "")
        known: dict[str, object] = {
            "cert_file": files.certificate,
            "key_file": files.key,
            "ca_file": self.ca_file or files.ca,
            "client_id": self.client_id or self.identity,
        }
        if self.host is None or self.port is None:
            host, port = tls_address(home)
            known |= {"host": self.host or host, "port": self.port or port}
        return known

    def _will(self, topic: str) -> object:
        from casemate.client import Will

        payload = (self.will_payload or "").encode()
        return Will(topic, payload, self.will_qos, self.will_retain)


def reaches(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `Reach`, which it gets as its first argument.

    Both commands would otherwise repeat all of them, and typer reads them off a signature.
    """

    @functools.wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401 - whatever typer has parsed.
        reach = Reach(**{field.name: values.pop(field.name) for field in fields(Reach)})
        _show_debug(reach.debug)
        command(reach, **values)

    own = list(inspect.signature(command).parameters.values())[1:]
    hints = get_type_hints(command, include_extras=True)
    shared = get_type_hints(Reach, include_extras=True)
    parameters = [one.replace(annotation=hints[one.name]) for one in own]
    parameters += [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=shared[field.name],
        )
        for field in fields(Reach)
    ]
    # `wraps` has named the command itself, whose signature is not the one to be read.
    shown: Any = run
    del shown.__wrapped__
    shown.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _show_debug(wanted: bool) -> None:
    """Lets the client's log through to stderr."""
    if wanted:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(name)s: %(message)s")
        # What asyncio says about itself helps nobody who looks for a broker.
        logging.getLogger("asyncio").setLevel(logging.WARNING)
