"""The TLS of `pub`, `sub` and `rr`: whom they trust and what they speak, never less than usual."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from casemate.cli.console import WrongUsage
from casemate.client import trust

_VERSIONS = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """Says how TLS is to be.

    Attributes:
        ca_file: PEM of the CAs to trust; None with no `ca_path` trusts the system's.
        ca_path: Folder of such files, named by `openssl rehash`.
        system_cas: Trust the system's besides these.
        cert_file: PEM of the client's certificate.
        key_file: PEM of its key.
        alpn: What is named as spoken inside.
        ciphers: OpenSSL's list for TLS 1.2; may only narrow what is offered without it.
        version: `tlsv1.2` or `tlsv1.3` alone; None offers both.
    """

    ca_file: Path | None
    ca_path: Path | None
    system_cas: bool
    cert_file: Path | None
    key_file: Path | None
    alpn: str
    ciphers: str | None
    version: str | None

    def context(self) -> ssl.SSLContext:
        """Makes the context, which verifies the broker and its name in every case.

        Raises:
            Untrusted: A file cannot be used.
            WrongUsage: ALPN or ciphers cannot be, or the ciphers are weaker than usual.
        """
        try:
            self.alpn.encode("ascii")
            made = trust(
                self.ca_file,
                self.cert_file,
                self.key_file,
                ca_path=self.ca_path,
                alpn=self.alpn,
            )
        except (UnicodeEncodeError, ssl.SSLError) as error:
            raise WrongUsage("--tls-alpn is a name of 1 to 255 letters, such as mqtt") from error
        if self.system_cas:
            made.load_default_certs()
        if self.ciphers is not None:
            _narrow(made, self.ciphers)
        if self.version is not None:
            made.minimum_version = made.maximum_version = _VERSIONS[self.version]
        return made


def _narrow(context: ssl.SSLContext, ciphers: str) -> None:
    usual = {one["name"] for one in context.get_ciphers()}
    # A security level, which @ sets, would hold for certificates too.
    if "@" in ciphers:
        raise WrongUsage("--ciphers takes names of ciphers, and no @ rules")
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as error:
        raise WrongUsage(
            "--ciphers names none that OpenSSL knows", hint='run "openssl ciphers -v" to list them'
        ) from error
    weaker = sorted(one["name"] for one in context.get_ciphers() if one["name"] not in usual)
    if weaker:
        raise WrongUsage(
            f"--ciphers would allow {weaker[0]}, which is not offered otherwise",
            hint="name fewer ciphers; weaker ones are refused",
        )
