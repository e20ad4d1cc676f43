"""The file of `casemate simulate`: devices, what they publish, how often, and how it looks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from casemate.cli.console import require_file
from casemate.config import explain
from casemate.config.section import Section, contradiction
from casemate.document import Document
from casemate.errors import CasemateError, ConfigurationError
from casemate.names import admit_account_name

DEVICES_MAX = 1_000
PAYLOAD_BYTES_MAX = 65_536

Qos = Annotated[StrictInt, Field(ge=0, le=2)]
Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]


class Payload(Section):
    """Describes what a message holds.

    Attributes:
        shape: `number` (wanders between `low` and `high`), `counter` (0, 1, 2 …), `switch`
            (`on` or `off`), `text` (always the same) or `bytes` (as many, at random).
        low: Lowest number.
        high: Highest number.
        decimals: Places behind the point, 0–9.
        text: What a `text` says.
        size: Bytes of `bytes`, 0–65,536.
        json_key: Wraps the value in a JSON object under this key; absent: the value alone.
    """

    shape: Literal["number", "counter", "switch", "text", "bytes"] = "number"
    low: Number = 0.0
    high: Number = 100.0
    decimals: Annotated[StrictInt, Field(ge=0, le=9)] = 1
    text: Annotated[StrictStr, Field(max_length=PAYLOAD_BYTES_MAX)] = ""
    size: Annotated[StrictInt, Field(ge=0, le=PAYLOAD_BYTES_MAX)] = 64
    json_key: StrictStr | None = None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.low > self.high:
            raise contradiction("high", "high is lower than low", "exchange them")
        if self.shape == "bytes" and self.json_key is not None:
            raise contradiction("json_key", "JSON cannot hold bytes", "remove the line")
        return self


class Publish(Section):
    """Describes one series of messages of a device.

    Attributes:
        topic: With `{name}` for the device's name and `{n}` for its number.
        every_s: Seconds between two messages, 0.01–86,400.
        jitter: Share of that by which each wait differs at random, 0–1.
        qos: Quality of service, 0–2.
        retain: Whether the broker keeps the last one.
        payload: What they hold.
    """

    topic: Annotated[StrictStr, Field(min_length=1, max_length=1_024)]
    every_s: Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)] = 1.0
    jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    qos: Qos = 0
    retain: StrictBool = False
    payload: Payload = Payload()


class Subscribe(Section):
    """Describes what a device listens to.

    Attributes:
        filter: Topic filter, with `{name}` and `{n}` as in a topic.
        qos: Highest quality of service, 0–2.
    """

    filter: Annotated[StrictStr, Field(min_length=1, max_length=1_024)]
    qos: Qos = 0


class Device(Section):
    """Describes devices that are alike.

    Attributes:
        name: Of each; with `{n}` for its number, from 1, where there are several.
        count: How many, 1–1,000.
        role: With which `--enrol` adds those that the home does not know.
        username: They prove themselves by password; absent: by the identity of their name.
        password_file: File with that password, relative to this one.
        publish: What they say.
        subscribe: What they listen to.
    """

    name: Annotated[StrictStr, Field(min_length=1, max_length=128)]
    count: Annotated[StrictInt, Field(ge=1, le=DEVICES_MAX)] = 1
    role: StrictStr | None = None
    username: StrictStr | None = None
    password_file: Path | None = None
    publish: Annotated[tuple[Publish, ...], Field(max_length=64)] = ()
    subscribe: Annotated[tuple[Subscribe, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if self.count > 1 and "{n}" not in self.name:
            raise contradiction("name", "several devices need {n} in their name", 'use "name-{n}"')
        if (self.username is None) != (self.password_file is None):
            raise contradiction("username", "a user name needs a password_file", "set both or none")
        if self.username is not None and self.role is not None:
            raise contradiction("role", "a user is not enrolled", "remove the line")
        for number in (1, self.count):
            try:
                admit_account_name(self.named(number))
            except CasemateError as error:
                raise contradiction("name", error.message, error.hint) from error
        return self

    def named(self, number: int) -> str:
        """Gives the name of one of them."""
        return filled(self.name, "", number)


class Fleet(Section):
    """Holds a whole file.

    Attributes:
        host: Address of the broker; absent: the home's.
        port: Its port.
        plaintext: Whether it is spoken to without TLS; on loopback only.
        devices: Who there is, 1,000 at most altogether.
    """

    host: StrictStr | None = None
    port: Annotated[StrictInt, Field(ge=1, le=65_535)] | None = None
    plaintext: StrictBool = False
    devices: Annotated[tuple[Device, ...], Field(max_length=DEVICES_MAX)]

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        if not self.devices:
            raise contradiction("devices", "there are no devices", "add [[devices]]")
        if sum(one.count for one in self.devices) > DEVICES_MAX:
            raise contradiction("devices", f"more than {DEVICES_MAX:,} devices", "simulate fewer")
        if (self.host is None) != (self.port is None):
            raise contradiction("host", "host and port belong together", "set both or none")
        names: set[str] = set()
        for position, described in enumerate(self.devices):
            for number in range(1, described.count + 1):
                name = described.named(number)
                if name in names:
                    place = ("devices", position, "name")
                    raise contradiction(place, f'two devices are "{name}"', "name them apart")
                names.add(name)
            if self.plaintext and described.username is None:
                place = ("devices", position, "username")
                raise contradiction(
                    place,
                    "without TLS a device needs a user name",
                    "add username and password_file",
                )
        return self

    def members(self) -> Iterator[tuple[str, int, Device]]:
        """Yields each single device: its name, its number among those alike, what it does."""
        for described in self.devices:
            for number in range(1, described.count + 1):
                yield described.named(number), number, described


def read_fleet(file: Path) -> Fleet:
    """Reads and checks the file of a fleet.

    Raises:
        ConfigurationError: It is missing, unreadable or wrong; file, line and hint are set.
    """
    require_file(file)
    document = Document.read(file, ConfigurationError)
    try:
        fleet = Fleet.model_validate(document.values)
    except ValidationError as error:
        raise explain.first(document, error.errors(include_url=False), Fleet) from error
    folder = file.absolute().parent
    devices = tuple(
        one
        if one.password_file is None
        else one.model_copy(update={"password_file": folder / one.password_file})
        for one in fleet.devices
    )
    return fleet.model_copy(update={"devices": devices})


def filled(template: str, name: str, number: int) -> str:
    """Puts name and number into a topic or a name; all other braces stay."""
    return template.replace("{n}", str(number)).replace("{name}", name)


def payloads(described: Payload, chance: random.Random) -> Iterator[bytes]:
    """Yields the payloads of one series, without end; the same seed gives the same ones."""
    value, counted = chance.uniform(described.low, described.high), 0
    while True:
        said: object
        if described.shape == "bytes":
            yield chance.randbytes(described.size)
            continue
        if described.shape == "counter":
            said = counted
        elif described.shape == "switch":
            said = chance.choice(("on", "off"))
        elif described.shape == "text":
            said = described.text
        else:
            rounded = round(value, described.decimals)
            said = rounded if described.decimals else int(rounded)
        key = described.json_key
        yield (str(said) if key is None else json.dumps({key: said})).encode()
        # A twentieth of the span at a time: readings wander, they do not jump.
        step = (described.high - described.low) / 20
        value = min(max(value + chance.uniform(-step, step), described.low), described.high)
        counted += 1
