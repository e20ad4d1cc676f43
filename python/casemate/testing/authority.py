"""A throw-away CA: certificates for servers and clients that no broker of ours has issued."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from casemate import files, pki


@dataclass(frozen=True, slots=True)
class Files:
    """Names the files of one certificate, PEM.

    Attributes:
        certificate: With the chain below the root.
        key: Its private key, mode 0600.
        ca: The root's certificate.

    Example:
        ```python
        from casemate.testing import Files, ThrowAwayCA

        with ThrowAwayCA() as authority:
            files: Files = authority.server("broker.example")
            print(files.certificate.name, files.key.name)  # certificate.crt private.key
        ```
    """

    certificate: Path
    key: Path
    ca: Path


class ThrowAwayCA:
    """Issues certificates into a temporary folder, which goes with it.

    Attributes:
        ca_file: The root's certificate, PEM.

    Example:
        ```python
        from casemate.client import Client
        from casemate.errors import Untrusted
        from casemate.testing import ThrowAwayBroker, ThrowAwayCA

        with ThrowAwayCA() as other, ThrowAwayBroker() as broker:
            at = broker.listening()
            try:
                Client(at.host, at.port, ca_file=other.ca_file).blocking().connect()
            except Untrusted as error:
                print(error.hint)  # give the broker's own CA file, …
        ```
    """

    def __init__(self) -> None:
        """Makes the authority.

        Raises:
            HomeError: The temporary folder cannot be written.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="casemate-ca-"))
        self._authority = pki.Authority.create(self._folder / "pki", "test")
        self.ca_file: Path = self._folder / "ca.crt"
        files.write_whole(self.ca_file, self._authority.root_pem, files.PUBLIC_MODE)

    def server(self, *names: str) -> Files:
        """Issues a server's certificate.

        Args:
            names: Host names and addresses; none means those of loopback.

        Raises:
            PkiError: A name is not a host's.
        """
        wanted = names or ("localhost", "127.0.0.1", "::1")
        return self._write(self._authority.issue_server(wanted), "server")

    def client(self, name: str) -> Files:
        """Issues a client's certificate.

        Args:
            name: 1–128 letters, digits, `.`, `_`, `@` or `-`.

        Raises:
            NameRefused: The name cannot be an account's.
        """
        return self._write(self._authority.issue_client("device", name), name)

    def close(self) -> None:
        """Removes all of it; idempotent."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Gives itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes all of it."""
        self.close()

    def _write(self, issued: pki.Issued, name: str) -> Files:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        made = Files(folder / "certificate.crt", folder / "private.key", self.ca_file)
        files.write_whole(made.key, issued.key_pem, files.PRIVATE_MODE)
        files.write_whole(made.certificate, issued.chain_pem, files.PUBLIC_MODE)
        return made
