"""How `pub`, `sub`, `rr` and `bench` reach a broker: mosquitto's options, URLs, and `--as`."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from casemate.cli import console, options
from casemate.cli.console import JsonOption, WrongUsage, refusing
from casemate.cli.foreign import refusals

if TYPE_CHECKING:
    from ssl import SSLContext

    from casemate.cli.property import Given
    from casemate.client import Client
    from casemate.layout import LocalIdentity

_VERSIONS = {
    "5": 5, "mqttv5": 5, "311": 4, "4": 4, "mqttv311": 4, "31": 3, "3": 3, "mqttv31": 3,
}  # fmt: skip
LOGGER = "casemate.client"
"""What -d lets through to stderr."""

_WILL_BYTES_MAX = 65_535
_DAY_S = 86_400
_FOR_EVER_S = 4_294_967_295
_SEEN_BY_OTHERS = (
    "the URL holds a password, which others on this machine may see; "
    "leave it out and use --password-file"
)


@dataclass(slots=True, kw_only=True)
class Reach:
    """Collects how a broker is reached; each field is an option of the command line."""

    identity: options.As = None
    home: options.HomeOption = None
    url: options.Url = None
    host: options.Host = None
    port: options.Port = None
    unix_socket: options.UnixSocket = None
    local_address: options.BindAddress = None
    proxy: options.Proxy = None
    client_id: options.ClientId = None
    client_id_prefix: options.ClientIdPrefix = None
    username: options.Username = None
    password: options.Password = None
    password_file: options.PasswordFile = None
    ca_file: options.CaFile = None
    ca_path: options.CaPath = None
    system_cas: options.SystemCas = False
    cert_file: options.CertFile = None
    key_file: options.KeyFile = None
    alpn: options.Alpn = None
    ciphers: options.Ciphers = None
    tls_version: options.TlsVersion = None
    plaintext: options.Plaintext = False
    version: options.VersionOption = "5"
    keep_alive_s: options.KeepAlive = 60
    keep_session: options.KeepSession = False
    session_expiry: options.SessionExpiry = None
    properties: options.PropertyOption = None
    in_flight: options.InFlight = 20
    will_topic: options.WillTopic = None
    will_payload: options.WillPayload = None
    will_qos: options.WillQos = 0
    will_retain: options.WillRetain = False
    no_delay: options.NoDelay = False
    quiet: options.Quiet = False
    debug: options.Debug = False
    as_json: JsonOption = False

    def take_url(self, words: list[str]) -> str | None:
        """Takes a URL from the words of a command, where the first is one; gives its topic.

        Args:
            words: The command's; a URL is taken out.

        Returns:
            The topic of the URL, whichever way it was given; None where there is none.

        Raises:
            WrongUsage: The URL cannot be, or there are two.
        """
        from casemate.cli.target import is_url, read_target

        if words and is_url(words[0]):
            if self.url is not None:
                raise WrongUsage("there are two URLs; one says where the broker is")
            self.url = words.pop(0)
        return None if self.url is None else read_target(self.url).topic

    def given(self) -> Given:
        """Gives the properties of `-D`.

        Raises:
            WrongUsage: One cannot be, or the version has none.
        """
        from casemate.cli.property import read_properties

        if self.properties and self.mqtt_version() != 5:
            raise WrongUsage("-D is of MQTT 5.0; leave it out, or say -V 5")
        return read_properties(self.properties or ())

    def mqtt_version(self) -> int:
        """Gives the version as `Client` knows it.

        Raises:
            WrongUsage: There is none of that name.
        """
        version = _VERSIONS.get(self.version.lower())
        if version is None:
            raise WrongUsage(f'-V is 5, 311 or 31, not "{self.version}"')
        return version

    def arguments(self) -> dict[str, Any]:
        """Gives the arguments of a `Client`.

        Raises:
            WrongUsage: An option cannot be, or two contradict each other.
            IdentityMissing: There is no such local identity.
            ConfigurationError: The password file cannot be read.
            Untrusted: A file of the TLS material cannot be used.
        """
        self._refuse_contradictions()
        given = self.given()
        arguments: dict[str, Any] = {
            "client_id": self._client_id(),
            "password": self._secret(),
            "version": self.mqtt_version(),
            "keep_alive_s": self.keep_alive_s,
            "clean_start": not self.keep_session,
            "session_expiry_s": self._session_expiry_s(),
            "will": self._will(given),
            **given.connect,
            **self._where(),
        }
        if self.username is not None:
            arguments["username"] = self.username
        return arguments

    def client(self, **others: Any) -> Client:  # noqa: ANN401 - as of `Client`.
        """Makes the client; raises as `arguments`.

        Args:
            others: Arguments that no option says.
        """
        arguments = self.arguments()
        # Loaded behind the checks: a wrong command line is told at once.
        from casemate.client import Client

        with refusing():
            return Client(**arguments, **others)

    def _refuse_contradictions(self) -> None:
        if self.password is not None and self.password_file is not None:
            raise WrongUsage("give -P or --password-file, not both")
        if self.client_id and self.client_id_prefix:
            raise WrongUsage("give -i or -I, not both")
        if self.host is not None and "://" in self.host:
            raise WrongUsage("-h is a name or an address; a URL is given with -L")
        is_unix = self.unix_socket is not None or (self.url or "").lower().startswith("unix:")
        if self.identity is not None and is_unix:
            raise WrongUsage(
                "--as proves itself by a certificate, and a unix socket asks for a password",
                hint="leave --as out, and give -u and --password-file",
            )
        if self.identity is not None and (self.cert_file or self.key_file):
            raise WrongUsage("--as brings its own --cert and --key")
        if self.key_file and not self.cert_file:
            raise WrongUsage("--key needs --cert, the certificate that belongs to it")
        if self.keep_session and not self.client_id and self.identity is None:
            raise WrongUsage("a session that is kept needs a client id: add -i")
        if self.will_topic is None and (self.will_payload or self.will_qos or self.will_retain):
            raise WrongUsage("a will needs --will-topic")

    def _client_id(self) -> str:
        if self.client_id_prefix is not None:
            return f"{self.client_id_prefix}{os.getpid()}"
        return self.client_id or ""

    def _secret(self) -> str | bytes | None:
        if self.password_file is not None:
            return console.read_secret(self.password_file)
        return None if self.password is None else os.fsencode(self.password)

    def _session_expiry_s(self) -> int:
        text = self.session_expiry
        if text is None:
            return _DAY_S if self.keep_session else 0
        if text in ("-1", "∞"):
            return _FOR_EVER_S
        if not (text.isascii() and text.isdigit()) or int(text[:12]) > _FOR_EVER_S:
            raise WrongUsage("-x is a number of seconds, up to 4,294,967,295, or -1 for ever")
        return int(text)

    def _where(self) -> dict[str, Any]:
        """Gives where the broker is and how TLS is spoken with it."""
        if self.unix_socket is not None and (self.host or self.port):
            raise WrongUsage("--unix takes the place of -h and -p")
        where: dict[str, Any] = {
            "host": self.host, "port": self.port, "unix_socket": self.unix_socket,
            "local_address": self.local_address, "proxy": self.proxy,
        }  # fmt: skip
        where = {name: value for name, value in where.items() if value is not None}
        if self.url is not None:
            where |= self._of_url(self.url)
        files: LocalIdentity | None = None
        if self.identity is not None:
            files, known = self._identity(self.identity, where)
            where = {**known, **where}
        if "unix_socket" not in where:
            where.setdefault("host", "localhost")
        if self.plaintext:
            where["insecure_plaintext"] = True
        where["tls"] = self._tls(where, files)
        return where

    def _of_url(self, url: str) -> dict[str, Any]:
        from casemate.cli.target import read_target

        said = read_target(url).arguments
        twice = {
            "-h": self.host, "-p": self.port, "--unix": self.unix_socket,
            "-u": self.username if "username" in said else None,
            "-P": self.password if "password" in said else None,
            "--password-file": self.password_file if "password" in said else None,
        }  # fmt: skip
        for name in (name for name, value in twice.items() if value is not None):
            raise WrongUsage(f"the URL and {name} both say it; leave one out")
        if "password" in said and not self.quiet:
            console.warn(_SEEN_BY_OTHERS, as_json=self.as_json)
        return said

    def _tls(
        self, where: dict[str, Any], files: LocalIdentity | None
    ) -> SSLContext | Literal[False]:
        asked = self._asks_for_tls()
        if self.plaintext or where.get("tls") is False:
            if asked is not None:
                by = "--insecure-plaintext" if self.plaintext else "the URL"
                raise WrongUsage(f"{asked} asks for TLS, and {by} for plaintext")
            self._refuse_plaintext_off_loopback(where)
            return False
        if "unix_socket" in where and asked is None:
            return False
        # Loaded here: plaintext and unix sockets need none of it.
        from casemate.cli.encryption import Encryption

        usual = "mqtt" if where.get("websocket_path") is None else "http/1.1"
        trusted = self.ca_file
        if trusted is None and self.ca_path is None and files is not None:
            trusted = files.ca
        return Encryption(
            ca_file=trusted,
            ca_path=self.ca_path,
            system_cas=self.system_cas,
            cert_file=self.cert_file if files is None else files.certificate,
            key_file=self.key_file if files is None else files.key,
            alpn=usual if self.alpn is None else self.alpn,
            ciphers=self.ciphers,
            version=self.tls_version,
        ).context()

    def _asks_for_tls(self) -> str | None:
        """Gives what asks for TLS, if anything does."""
        asking = {
            "--as": self.identity, "--cafile": self.ca_file, "--capath": self.ca_path,
            "--cert": self.cert_file, "--tls-alpn": self.alpn, "--ciphers": self.ciphers,
            "--tls-version": self.tls_version, "--tls-use-os-certs": self.system_cas,
            "the URL": self.url is not None and self.url.lower().startswith(("mqtts:", "wss:")),
        }  # fmt: skip
        return next((name for name, value in asking.items() if value), None)

    def _refuse_plaintext_off_loopback(self, where: dict[str, Any]) -> None:
        from casemate.client.address import is_loopback

        host = where.get("host", "")
        if self.plaintext or "unix_socket" in where or (is_loopback(host) and not self.proxy):
            return
        raise WrongUsage(
            f"{host} is not this machine, and the connection would be in plaintext",
            hint="use mqtts:// or wss://; --insecure-plaintext lets everybody on the way read it",
        )

    def _identity(self, name: str, where: dict[str, Any]) -> tuple[LocalIdentity, dict[str, Any]]:
        """Gives the files of a local identity, and what it knows unless it was said by hand."""
        from casemate.cli.local import identity_files, tls_address

        home = (self.home or Path()).absolute()
        files = identity_files(home, name)
        known: dict[str, Any] = {}
        if not self.client_id and not self.client_id_prefix:
            known["client_id"] = name
        if "unix_socket" not in where and self.url is None and not {"host", "port"} <= where.keys():
            known["host"], known["port"] = tls_address(home)
        return files, known

    def _will(self, given: Given) -> object:
        if self.will_topic is None:
            if given.will:
                raise WrongUsage("-D will needs --will-topic")
            return None
        from casemate.client import Properties, Will

        said = dict(given.will)
        delay_s = said.pop("delay_s", None)
        payload = os.fsencode(self.will_payload or "")
        if len(payload) > _WILL_BYTES_MAX:
            raise WrongUsage(f"--will-payload is longer than {_WILL_BYTES_MAX:,} bytes")
        return Will(
            self.will_topic, payload, self.will_qos, self.will_retain, delay_s, Properties(**said)
        )


def reaches(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Gives a command its options by the fields of the classes that it takes, `Reach` the first.

    Several commands would otherwise repeat them, and typer reads them off a signature. The options
    that mosquitto's programs have besides are refused by name.
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters.values()
    gathered = {one.name: hints[one.name] for one in own if is_dataclass(hints[one.name])}
    foreign = refusals(command.__name__)

    @functools.wraps(command)
    def run(**values: Any) -> int | None:  # noqa: ANN401 - whatever typer has parsed.
        for name in foreign:
            values.pop(name)
        classes = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in gathered.items()
        }
        reach = next(one for one in classes.values() if isinstance(one, Reach))
        with _log_shown(quiet=reach.quiet, debug=reach.debug):
            return command(**classes, **values)

    parameters = [
        one.replace(annotation=hints[one.name]) for one in own if one.name not in gathered
    ]
    # What a command does stands before how it reaches a broker.
    for kind in sorted(gathered.values(), key=lambda kind: kind is Reach):
        parameters += _parameters(kind)
    parameters += foreign.values()
    # `wraps` has named the command itself, whose signature is not the one to be read.
    shown: Any = run
    del shown.__wrapped__
    shown.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:  # noqa: ANN401 - a class of options.
    """Yields a parameter for each field of a class of options."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )


class _Printable(logging.Formatter):
    """Writes a line that cannot steer the terminal, whatever a broker has put into it."""

    def format(self, record: logging.LogRecord) -> str:
        """Gives the line."""
        return console.printable(super().format(record))


@contextmanager
def _log_shown(*, quiet: bool, debug: bool) -> Iterator[None]:
    """Lets the client's log through to stderr: losses and returns, and with -d all of it."""
    logger = logging.getLogger(LOGGER)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(asctime)s %(message)s" if debug else "%(message)s"))
    level = logger.level
    if debug:
        logger.setLevel(logging.DEBUG)
    else:
        logger.setLevel(logging.CRITICAL if quiet else logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
