"""The configuration as it was read: from which file, which variables, and what came from where."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from casemate.config import explain, shape, variables
from casemate.config.configuration import FILE_NAME, NO_LISTENER_HINT, Configuration
from casemate.config.listener import SOCKETS_PATH_BYTES_MAX, Listener
from casemate.config.variables import Variables
from casemate.document import Document, Place
from casemate.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Source:
    """Says where a value comes from.

    Attributes:
        kind: `file`, `environment` or `default`.
        where: `casemate.toml:12`, the name of a variable, or nothing.
    """

    kind: Literal["file", "environment", "default"]
    where: str = ""

    def __str__(self) -> str:
        """Gives it in a word."""
        return self.where or self.kind


@dataclass(frozen=True, slots=True)
class Setting:
    """Is one option of a configuration.

    Attributes:
        place: Keys and positions down to it.
        value: What is in force, as TOML and JSON can say it; None for nothing.
        default: What would be in force if nothing were said; None for nothing.
        source: Where the value comes from.

    Example:
        ```python
        from casemate import config
        from casemate.config import Setting
        from casemate.home import Home

        settings: list[Setting] = list(config.read(Home.init("lab").home, {}).settings())
        print(settings[0].name, settings[0].value, settings[0].source)  # …
        ```
    """

    place: Place
    value: object
    default: object
    source: Source

    @property
    def name(self) -> str:
        """The option as people read it, such as `listeners.0.port`."""
        return ".".join(str(one) for one in self.place)


@dataclass(frozen=True)
class Reading:
    """Holds a configuration that was found valid, and where it comes from.

    Attributes:
        configuration: With the paths of certificates, keys and sockets absolute.
        document: The file, with what the environment says laid over its values.
        variables: The variable that has set each option which one has set.
    """

    configuration: Configuration
    document: Document
    variables: Variables

    def source(self, place: Place) -> Source:
        """Says where the value at a place comes from.

        Args:
            place: Keys and positions down to it, such as `("limits", "receive_max")`.
        """
        if place in self.variables:
            return Source("environment", self.variables[place])
        line = self.document.lines.get(place)
        if line is not None:
            return Source("file", f"{self.document.file.name}:{line}")
        return Source("default")

    def settings(self) -> Iterator[Setting]:
        """Yields every option that could be set: of the whole, then of each table, in order."""
        for section in shape.sections():
            for position, table in self._tables(section):
                usual = table.usual() if isinstance(table, Listener) else {}
                place: Place = (section,) if section else ()
                place = place if position is None else (*place, position)
                for option in shape.options():
                    if option.section != section:
                        continue
                    if isinstance(table, Listener) and not table.has(option.name):
                        continue
                    default = usual.get(option.name, option.default)
                    yield self._setting((*place, option.name), table, default)

    def _tables(self, section: str) -> Iterator[tuple[int | None, object]]:
        value = getattr(self.configuration, section) if section else self.configuration
        if isinstance(value, tuple):
            yield from enumerate(value)
        else:
            yield None, value

    def _setting(self, place: Place, table: object, default: object) -> Setting:
        value = getattr(table, str(place[-1]))
        return Setting(place, _plain(value), _plain(default), self.source(place))


def read(
    home: Path, environment: Mapping[str, str] | None = None, file: Path | None = None
) -> Reading:
    """Reads and checks the configuration of a home, with what the environment says over it.

    Args:
        home: Folder that holds `casemate.toml`, and that relative paths start from.
        environment: Variables; None takes those of this process.
        file: Read in place of the home's own, such as a draft.

    Raises:
        ConfigurationError: The file is missing, unreadable, not TOML, has an unknown key, a
            value out of range, or a contradiction; file and line, or the variable, are said,
            and a hint is set.

    Example:
        ```python
        from casemate import config
        from casemate.home import Home

        home = Home.init("lab").home
        reading: config.Reading = config.read(home, {"CASEMATE_LIMITS__RECEIVE_MAX": "20"})
        print(reading.configuration.limits.receive_max)  # 20
        source: config.Source = reading.source(("limits", "receive_max"))
        print(source.kind, source)  # environment CASEMATE_LIMITS__RECEIVE_MAX
        print(reading.source(("shards",)))  # casemate.toml:…
        ```
    """
    document = Document.read(file or home / FILE_NAME, ConfigurationError)
    laid, named = variables.overlay(
        document.values, os.environ if environment is None else environment
    )
    document = replace(document, values=laid)
    configuration = parse(document, named).in_home(home)
    for position, listener in enumerate(configuration.listeners):
        if listener.socket is not None:
            length = len(os.fsencode(listener.socket))
            if length > SOCKETS_PATH_BYTES_MAX:
                raise explain.blame(
                    document,
                    named,
                    ("listeners", position, "socket"),
                    f"the path of the socket has {length} bytes, "
                    f"the system takes {SOCKETS_PATH_BYTES_MAX}",
                    "use a shorter path, such as one below /run",
                )
    return Reading(configuration, document, named)


def load(home: Path, environment: Mapping[str, str] | None = None) -> Configuration:
    """Gives the configuration of a home alone.

    Args:
        home: As for `read`.
        environment: As for `read`.

    Example:
        ```python
        from casemate import config
        from casemate.errors import ConfigurationError
        from casemate.home import Home

        home = Home.init("lab").home
        print(config.load(home).listeners[0].port)  # 8883
        try:
            config.load(home, {"CASEMATE_SHARD": "2"})
        except ConfigurationError as error:
            print(error.hint)  # did you mean CASEMATE_SHARDS?
        ```
    """
    return read(home, environment).configuration


def parse(document: Document, named: Variables | None = None) -> Configuration:
    """Checks a document that was read already; paths stay as they were written.

    Args:
        document: With what the environment says laid over it.
        named: The variables that were.

    Raises:
        ConfigurationError: As for `read`.

    Example:
        ```python
        from casemate import config
        from casemate.document import Document
        from casemate.errors import ConfigurationError

        try:
            config.parse(Document.parse("shard = 1", config.FILE_NAME, ConfigurationError))
        except ConfigurationError as error:
            print(error)  # casemate.toml: no listener is declared
        ```
    """
    if not document.values.get("listeners"):
        raise document.wrong(("listeners",), "no listener is declared", hint=NO_LISTENER_HINT)
    try:
        return Configuration.model_validate(document.values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise explain.first(document, problems, Configuration, named) from error


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
