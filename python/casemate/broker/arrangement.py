"""The configuration on its way into the running engine: verified whole, then swapped, or left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from casemate import config, files, native, pki
from casemate.broker import assemble, material
from casemate.broker.material import Material
from casemate.config import Configuration, Listener
from casemate.errors import BrokerError, CasemateError
from casemate.home import Home
from casemate.layout import PKI

Signature = tuple[int, int, int] | None

_FIXED_SECTIONS = ("limits", "log", "store")
_FIXED_OPTIONS = ("shards",)
"""What the engine, the log or the store is made with: a change counts from the next start."""


class Arrangement:
    """Knows which configuration is in force, and puts another one in force.

    Listeners with their certificates, keys and authorities are taken anew each time, whether
    the configuration itself has changed or not.
    """

    def __init__(
        self,
        home: Home,
        given: Configuration | None = None,
        material: Material | None = None,
    ) -> None:
        """Reads the configuration as it is now.

        Args:
            home: Whose.
            given: Used in place of the home's; its paths are absolute.
            material: Stands in place of what its listeners name; None for nothing.

        Raises:
            ConfigurationError: It is wrong, so that there is nothing to start with.
            BrokerError: No listener would use the material.
        """
        self._home = home
        self._given = given
        self._material = material or Material()
        self._wanted_material: Material | None = None
        self.current: Configuration = self._read()
        self._material.require_of_use(self.current)
        # Taken before the material: what changes in between is seen next time.
        self._seen = self._signatures(self.current)
        self._tried = self._seen
        self._marks: dict[str, bytes] = {}

    def listeners(self) -> list[native.Listener]:
        """Gives the listeners for the engine's start.

        Raises:
            BrokerError: Certificate, key or authorities cannot be read.
        """
        assembled, self._marks = self._assemble(self.current, self._material)
        return assembled

    def give(self, given: Configuration) -> None:
        """Replaces the configuration that was given; `install` puts it in force."""
        self._given = given

    @property
    def material(self) -> Material:
        """What stands in place of what the listeners name."""
        return self._material

    def give_material(self, material: Material) -> None:
        """Replaces the material; the next `install` puts it in force, or leaves what was."""
        self._wanted_material = material

    def is_news(self) -> bool:
        """Says whether files have changed since they were last tried, and are at rest by now.

        A certificate and its key are replaced one after the other. What is seen for the first
        time is therefore left until it is seen again.
        """
        signatures = self._signatures(self.current)
        is_at_rest, self._seen = signatures == self._seen, signatures
        return is_at_rest and signatures != self._tried

    def install(self, server: native.Server) -> tuple[list[str], list[str]]:
        """Puts in force what the home says now; everything is verified before anything changes.

        Returns:
            What has changed, and what has changed on disk but needs a restart; in words.

        Raises:
            CasemateError: Something cannot be; everything is as it was.
        """
        self._tried = self._signatures(self.current)
        given, self._wanted_material = self._wanted_material or self._material, None
        wanted = self._read()
        self._require_trustworthy(wanted)
        given.require_of_use(wanted)
        assembled, marks = self._assemble(wanted, given)
        for name, described in wanted.named():
            # What was there before is no reason to keep anything else from being in force.
            if self._marks.get(name) != marks[name]:
                _require_current(name, described, given)
        try:
            is_obeyed = server.install_listeners(assembled)
        except native.StartRefused as error:
            raise assemble.start_error(error, "the listeners cannot be changed") from error
        changed = list(_changes(self._marks, marks))
        fixed = list(_fixed(self.current, wanted))
        kept = (*_FIXED_SECTIONS, *_FIXED_OPTIONS)
        self.current = wanted.model_copy(update={one: getattr(self.current, one) for one in kept})
        self._marks, self._material = marks, given
        # The files that count may be others now.
        self._seen = self._tried = self._signatures(self.current)
        if not is_obeyed:
            raise BrokerError("a shard did not take the listeners in 5 s", hint="it still will")
        return changed, fixed

    # Inside

    def _read(self) -> Configuration:
        return self._given or config.load(self._home.path)

    def _require_trustworthy(self, wanted: Configuration) -> None:
        """Refuses what others may have changed, as at a start."""
        if self._given is None:
            files.require_unwritable_by_others(self._home.path / config.FILE_NAME)
        for name in (pki.ROOT_CERTIFICATE, pki.ISSUER_CERTIFICATE):
            files.require_unwritable_by_others(self._home.path / PKI / name)
        own_key = self._home.path / config.SERVER_KEY
        if self._material.key is None and any(
            listener.key == own_key for listener in wanted.listeners
        ):
            files.require_private(own_key)

    def _assemble(
        self, wanted: Configuration, given: Material
    ) -> tuple[list[native.Listener], dict[str, bytes]]:
        """Gives the listeners, and for each a mark that changes with anything it is made of."""
        trusted = self._home.client_authorities()
        assembled, marks = [], {}
        for name, described in wanted.named():
            assembled.append(assemble.listener(name, described, trusted, given))
            marks[name] = _mark(described, trusted, given)
        return assembled, marks

    def _signatures(self, wanted: Configuration) -> dict[Path, Signature]:
        """Gives what changes with any file that decides what the listeners are."""
        read = [self._home.path / PKI / pki.ROOT_CERTIFICATE]
        read.append(self._home.path / PKI / pki.ISSUER_CERTIFICATE)
        if self._given is None:
            read.append(self._home.path / config.FILE_NAME)
        for described in wanted.listeners:
            sources = self._material.of_listener(described)
            read += [source for source in sources if isinstance(source, Path)]
        return {path: signature(path) for path in read}


def _require_current(name: str, described: Listener, given: Material) -> None:
    """Refuses a new certificate that every client would refuse."""
    certificate = given.certificate_of(described)
    if certificate is None or not described.is_encrypted:
        return
    try:
        begin, end = pki.validity(material.read(certificate))
    except (CasemateError, ValueError):
        # What it is instead of a certificate, the engine says.
        return
    now = pki.utc_now()
    if now >= end:
        raise BrokerError(
            f"listener {name}: the certificate expired on {end:%Y-%m-%d %H:%M} UTC",
            hint="issue another one, or correct a clock that runs ahead",
        )
    if now < begin:
        raise BrokerError(
            f"listener {name}: the certificate is valid from {begin:%Y-%m-%d %H:%M} UTC on",
            hint="correct a clock that runs behind, or wait",
        )


def signature(path: Path) -> Signature:
    """Gives what changes with a file; None where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _mark(described: Listener, trusted: bytes, given: Material) -> bytes:
    """Names everything that a listener is made of, to tell whether it has changed."""
    digest = hashlib.sha256(repr(described).encode())
    digest.update(trusted)
    sources = given.of_listener(described) if described.is_encrypted else []
    for source in sources:
        content = material.read(source)
        digest.update(len(content).to_bytes(8) + content)
    return digest.digest()


def _changes(before: dict[str, bytes], after: dict[str, bytes]) -> Iterator[str]:
    for name, mark in after.items():
        if name not in before:
            yield f"listener {name} added"
        elif before[name] != mark:
            yield f"listener {name} changed"
    for name in before:
        if name not in after:
            yield f"listener {name} removed"


def _fixed(before: Configuration, after: Configuration) -> Iterator[str]:
    """Names the options that have changed and count from the next start only."""
    for option in _FIXED_OPTIONS:
        if getattr(before, option) != getattr(after, option):
            yield option
    for section in _FIXED_SECTIONS:
        old, new = getattr(before, section), getattr(after, section)
        for option in type(old).model_fields:
            if getattr(old, option) != getattr(new, option):
                yield f"{section}.{option}"
