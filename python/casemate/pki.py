"""The authority of a home: makes itself, and issues certificates for servers and clients.

A root (10 years) signs an issuer (3 years), which signs everything else; the root's key is needed
for nothing in daily work and can be kept elsewhere. All keys are ECDSA on P-256.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from casemate import layout
from casemate.errors import (
    AuthorityDamaged,
    AuthorityExpired,
    AuthorityLocked,
    ClockWrong,
    FileExposed,
    HomeError,
    LifetimeRefused,
    PkiError,
)
from casemate.files import (
    FOLDER_MODE,
    PRIVATE_MODE,
    PUBLIC_MODE,
    read_bounded,
    reason,
    require_private,
    write_whole,
)
from casemate.names import KINDS, Kind, admit_account_name

ROOT_CERTIFICATE = layout.ROOT_CERTIFICATE
ROOT_KEY = layout.ROOT_KEY
ISSUER_CERTIFICATE = layout.ISSUER_CERTIFICATE
ISSUER_KEY = layout.ISSUER_KEY
CHAIN = "chain.crt"

ROOT_DAYS = 3_652
ISSUER_DAYS = 1_095
LIFETIME_DAYS = 365
LIFETIME_DAYS_MAX = 397
"""What clients accept of a server at most (CA/Browser Forum baseline, 398 days), less one."""

BACKDATED_S = 300
"""Certificates begin this long ago, because the clocks of small devices run late."""

PASSPHRASE_BYTES_MIN = 8
PASSPHRASE_BYTES_MAX = 1_024
SERVER_NAMES_MAX = 100

_COMMON_NAME_CHARACTERS_MAX = 64
_HOST_CHARACTERS_MAX = 253
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Gives the time of this machine, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Issued:
    """Holds a certificate and its private key, not yet written anywhere.

    Attributes:
        certificate_pem: The certificate alone.
        chain_pem: The certificate and the issuer's, as a server or client presents them.
        key_pem: The private key, PKCS #8, not encrypted; never shown.
        fingerprint: SHA-256 of the certificate's DER, 32 bytes.
        not_after_s: End of the validity, in seconds of Unix time.
        names: What the certificate is valid for: host names and addresses, or one account.
    """

    certificate_pem: bytes
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    fingerprint: bytes
    not_after_s: int
    names: tuple[str, ...]


class Authority:
    """Signs certificates with the issuer's key; made by `create` or `load`."""

    def __init__(
        self,
        root: x509.Certificate,
        issuer: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        clock: Clock,
    ) -> None:
        """Takes over what was checked already."""
        self._root = root
        self._issuer = issuer
        self._key = key
        self._clock = clock

    @classmethod
    def create(
        cls,
        folder: Path,
        host: str,
        passphrase: str | None = None,
        *,
        clock: Clock = utc_now,
        lasting: bool = True,
    ) -> Authority:
        """Makes a root and an issuer, and writes both with their keys.

        Args:
            folder: Made with mode 0700 if missing; must hold no authority yet.
            host: Name that tells this authority from others, for people; at most 64 characters
                of it are kept.
            passphrase: Encrypts both keys, 8–1,024 bytes; None leaves them to the mode 0600.
            clock: Time, for tests.
            lasting: As for `write_whole`.

        Raises:
            PkiError: There is an authority already, or the passphrase has the wrong length.
            HomeError: The folder cannot be written.
        """
        encryption = _encryption(passphrase)
        _make_folder(folder)
        now = clock()
        root_key = ec.generate_private_key(ec.SECP256R1())
        root_name = _authority_name("root", host)
        root = _sign_authority(root_name, root_name, root_key, root_key, None, ROOT_DAYS, 1, now)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _authority_name("issuer", host)
        issuer = _sign_authority(name, root_name, key, root_key, root, ISSUER_DAYS, 0, now)
        for file, content, mode in (
            (ROOT_KEY, _key_pem(root_key, encryption), PRIVATE_MODE),
            (ISSUER_KEY, _key_pem(key, encryption), PRIVATE_MODE),
            (ROOT_CERTIFICATE, _pem(root), PUBLIC_MODE),
            (ISSUER_CERTIFICATE, _pem(issuer), PUBLIC_MODE),
            (CHAIN, _pem(issuer) + _pem(root), PUBLIC_MODE),
        ):
            write_whole(folder / file, content, mode, lasting=lasting)
        return cls(root, issuer, key, clock)

    @classmethod
    def load(
        cls, folder: Path, passphrase: str | None = None, *, clock: Clock = utc_now
    ) -> Authority:
        """Reads root, issuer and the issuer's key, and checks that they belong together.

        Args:
            folder: As for `create`; the root's key may be absent.
            passphrase: Needed if the keys are encrypted.
            clock: Time, for tests.

        Raises:
            AuthorityDamaged: A file is missing, unreadable, or does not fit the others.
            AuthorityLocked: The passphrase is missing or wrong.
            AuthorityExpired: Root or issuer are past their end.
            ClockWrong: This machine's clock is before their beginning.
            FileExposed: Others may read the issuer's key.
        """
        root = _read_certificate(folder / ROOT_CERTIFICATE)
        issuer = _read_certificate(folder / ISSUER_CERTIFICATE)
        for certificate, file in ((root, ROOT_CERTIFICATE), (issuer, ISSUER_CERTIFICATE)):
            try:
                certificate.verify_directly_issued_by(root)
                is_authority = certificate.extensions.get_extension_for_class(
                    x509.BasicConstraints
                ).value.ca
            except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
                raise _damaged(folder / file, "it was not signed by the root") from error
            if not is_authority:
                raise _damaged(folder / file, "it may not sign certificates")
            _require_current(certificate, folder / file, clock())
        key = _read_key(folder / ISSUER_KEY, passphrase)
        if key.public_key() != issuer.public_key():
            raise _damaged(folder / ISSUER_KEY, f"it is not the key of {ISSUER_CERTIFICATE}")
        return cls(root, issuer, key, clock)

    @property
    def root_pem(self) -> bytes:
        """The root's certificate, which clients and servers trust."""
        return _pem(self._root)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the root's certificate, for people to compare."""
        return _colons(self._root.fingerprint(hashes.SHA256()))

    def issue_server(self, names: Iterable[str], *, lifetime_days: int = LIFETIME_DAYS) -> Issued:
        """Issues a certificate for a server, with a new key.

        Args:
            names: 1–100 host names and addresses by which clients reach it; repeats count once.
            lifetime_days: Validity in days, 1–397.

        Raises:
            PkiError: A name is not a host name or address, or there are none or too many.
            LifetimeRefused: The validity is out of range or outlives the issuer.
        """
        admitted = tuple(dict.fromkeys(admit_host_name(name) for name in names))
        if not 0 < len(admitted) <= SERVER_NAMES_MAX:
            raise PkiError(f"a server certificate has 1 to {SERVER_NAMES_MAX} names")
        general: list[x509.GeneralName] = []
        for name in admitted:
            try:
                general.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                general.append(x509.DNSName(name))
        return self._issue(
            _subject("server", admitted[0]),
            general,
            ExtendedKeyUsageOID.SERVER_AUTH,
            lifetime_days,
            admitted,
        )

    def issue_client(self, kind: Kind, name: str, *, lifetime_days: int = LIFETIME_DAYS) -> Issued:
        """Issues a certificate for one account, with a new key.

        Its URI is `urn:casemate:<kind>:<name>` and its common name the name, where that is at
        most 64 characters (the bound of X.520).

        Args:
            kind: `user` or `device`.
            name: Name of an account, 1–128 characters.
            lifetime_days: Validity in days, 1–397.

        Raises:
            NameRefused: It cannot be the name of an account.
            LifetimeRefused: The validity is out of range or outlives the issuer.
        """
        admit_account_name(name)
        if kind not in KINDS:
            raise PkiError(f"{ascii(kind)[:48]} is not a kind of account")
        uri = x509.UniformResourceIdentifier(f"urn:casemate:{kind}:{name}")
        return self._issue(
            _subject(kind, name), [uri], ExtendedKeyUsageOID.CLIENT_AUTH, lifetime_days, (name,)
        )

    def _issue(
        self,
        subject: x509.Name,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        lifetime_days: int,
        shown: tuple[str, ...],
    ) -> Issued:
        now = self._clock()
        _require_current(self._issuer, Path(ISSUER_CERTIFICATE), now)
        end = self._end(now, lifetime_days)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, self._issuer.subject, key, now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_authority_key(self._issuer), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = _pem(certificate)
        return Issued(
            certificate_pem=pem,
            chain_pem=pem + _pem(self._issuer),
            key_pem=_key_pem(key, serialization.NoEncryption()),
            fingerprint=certificate.fingerprint(hashes.SHA256()),
            not_after_s=int(end.timestamp()),
            names=shown,
        )

    def _end(self, now: datetime, lifetime_days: int) -> datetime:
        if not 1 <= lifetime_days <= LIFETIME_DAYS_MAX:
            raise LifetimeRefused(
                f"a certificate is valid for 1 to {LIFETIME_DAYS_MAX} days, not {lifetime_days}"
            )
        end = (now + timedelta(days=lifetime_days)).replace(microsecond=0)
        last = self._issuer.not_valid_after_utc
        if end > last:
            raise LifetimeRefused(
                f"the certificate would outlive its issuer, which ends on {last:%Y-%m-%d}",
                hint=f"ask for at most {(last - now).days} days",
            )
        return end


def is_locked(folder: Path) -> bool:
    """Tells whether the issuer's key is encrypted.

    Raises:
        AuthorityDamaged: The key is missing or unreadable.
    """
    return b"ENCRYPTED" in _read(folder / ISSUER_KEY)


def validity(certificate_pem: bytes) -> tuple[datetime, datetime]:
    """Gives from when to when the first certificate of a text is valid, in UTC.

    Args:
        certificate_pem: One or more certificates, the leaf first.

    Raises:
        ValueError: There is no certificate in it.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def fingerprint(certificate_pem: bytes) -> str:
    """Gives SHA-256 of a certificate's DER in hexadecimal pairs with colons.

    Raises:
        AuthorityDamaged: The text holds no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as error:
        raise AuthorityDamaged("the text is not a certificate") from error
    return _colons(certificate.fingerprint(hashes.SHA256()))


def admit_host_name(text: str) -> str:
    """Gives back a host name or address in the form that certificates have.

    Args:
        text: An IPv4 or IPv6 address without a zone, or a DNS name of at most 253 characters.

    Raises:
        PkiError: It is neither.
    """
    if "%" not in text:
        with suppress(ValueError):
            return str(ipaddress.ip_address(text))
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    # A last label of digits alone would be read as an address by some, and as a name by others.
    is_name = len(name) <= _HOST_CHARACTERS_MAX and all(map(_LABEL.match, labels))
    if is_name and not labels[-1].isdigit():
        return name
    raise PkiError(
        f"{text[:64]!a} is not a host name or address",
        hint="use letters, digits and '-' between dots (xn--… for other letters), or an address",
    )


def machine_names() -> tuple[str, ...]:
    """Lists the names and addresses by which clients may reach this machine.

    Loopback comes first; what has no form that a certificate can hold is left out.
    """
    found = ["localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()]
    found += _own_addresses()
    admitted = []
    for name in found:
        with suppress(PkiError):
            admitted.append(admit_host_name(name))
    return tuple(dict.fromkeys(admitted))[:SERVER_NAMES_MAX]


def _own_addresses() -> list[str]:
    """Finds the addresses that packets to the outside and back would carry."""
    found = []
    with suppress(OSError):
        found += [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)]
    # Choosing a route for a datagram socket sends nothing; the addresses are of RFC 5737 and 3849.
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            found.append(str(probe.getsockname()[0]))
    return found


def _authority_name(role: str, host: str) -> x509.Name:
    shown = "".join(c for c in host if c.isascii() and c.isprintable())
    common = f"casemate {role} of {shown}"[:_COMMON_NAME_CHARACTERS_MAX].rstrip()
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "casemate"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _subject(unit: str, name: str) -> x509.Name:
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "casemate"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
    ]
    # A longer name stands in the alternative name alone: half a name could be another's.
    if len(name) <= _COMMON_NAME_CHARACTERS_MAX:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
    return x509.Name(attributes)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    begin = (now - timedelta(seconds=BACKDATED_S)).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _sign_authority(
    subject: x509.Name,
    issuer_name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    parent: x509.Certificate | None,
    days: int,
    path_length: int,
    now: datetime,
) -> x509.Certificate:
    end = (now + timedelta(days=days)).replace(microsecond=0)
    builder = (
        _builder(subject, issuer_name, key, now, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    own = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    above = own if parent is None else _authority_key(parent)
    return builder.add_extension(above, critical=False).sign(signer, hashes.SHA256())


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject.value)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _encryption(passphrase: str | None) -> serialization.KeySerializationEncryption:
    if passphrase is None:
        return serialization.NoEncryption()
    secret = passphrase.encode("utf-8", "surrogatepass")
    if not PASSPHRASE_BYTES_MIN <= len(secret) <= PASSPHRASE_BYTES_MAX:
        raise PkiError(
            f"the passphrase has {PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX:,} bytes",
            hint="use a few unrelated words",
        )
    return serialization.BestAvailableEncryption(secret)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise HomeError(f"{folder} cannot be made", cause=reason(error)) from error
    require_private(folder)
    for file in (ROOT_CERTIFICATE, ROOT_KEY, ISSUER_CERTIFICATE, ISSUER_KEY):
        if (folder / file).exists():
            raise PkiError(f"there is an authority in {folder} already")


def _key_pem(
    key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _colons(digest: bytes) -> str:
    return digest.hex(":").upper()


def _require_current(certificate: x509.Certificate, file: Path, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        raise ClockWrong(
            f"the clock of this machine says {now:%Y-%m-%d %H:%M} UTC,"
            f" but {file.name} was made on {begin:%Y-%m-%d %H:%M}",
            hint="set the clock (timedatectl), then try again",
        )
    if now >= end:
        raise AuthorityExpired(
            f"{file.name} expired on {end:%Y-%m-%d}",
            hint="make a new home and enrol the devices anew, or correct a clock that runs ahead",
        )


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file)
    except OSError as error:
        raise _damaged(file, reason(error)) from error
    except HomeError as error:
        raise _damaged(file, error.message) from error


def _read_certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(file))
    except ValueError as error:
        raise _damaged(file, "it is not a certificate") from error


def _read_key(file: Path, passphrase: str | None) -> ec.EllipticCurvePrivateKey:
    content = _read(file)
    try:
        require_private(file)
    except FileExposed:
        raise
    except HomeError as error:
        raise _damaged(file, str(error)) from error
    encrypted = b"ENCRYPTED" in content
    if encrypted and passphrase is None:
        raise AuthorityLocked(
            f"{file} is encrypted", hint="give its passphrase (--passphrase-file)"
        )
    # One that is not encrypted needs no passphrase; a given one is then simply not used.
    secret = passphrase.encode("utf-8", "surrogatepass") if passphrase and encrypted else None
    try:
        key = serialization.load_pem_private_key(content, secret)
    except (ValueError, TypeError) as error:
        if encrypted:
            raise AuthorityLocked(
                f"{file} cannot be opened: the passphrase is wrong, or the file is damaged"
            ) from error
        raise _damaged(file, "it is not a private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(file, "it is not a key on an elliptic curve")
    return key


def _damaged(file: Path, cause: str) -> AuthorityDamaged:
    return AuthorityDamaged(
        f"the authority is damaged at {file}", cause=cause, hint="restore the file from a backup"
    )
