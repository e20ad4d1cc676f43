"""Topics: which filter matches which, and patterns that name the levels between the slashes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from casemate import native

_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)(#?)\}", re.ASCII)
_SHARE = "$share/"
_NO_UTF8 = "it cannot be written as UTF-8"


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """Is a topic filter whose wildcards have names.

    `{name}` stands for one level, `{name#}` at the end for all that follow. A pattern may be
    given wherever a filter is wanted.

    Attributes:
        text: As it was written.
        filter: The MQTT topic filter.

    Example:
        ```python
        from casemate.client import TopicPattern

        temperatures = TopicPattern("devices/{device}/temp")
        print(temperatures.filter)  # devices/+/temp
        print(temperatures.read("devices/t7/temp"))  # {'device': 't7'}
        print(temperatures.topic(device="t7"))  # devices/t7/temp
        ```
    """

    text: str
    filter: str = field(init=False, compare=False)
    _levels: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _names: tuple[str | None, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Reads the text.

        Raises:
            ValueError: It is no filter, or a placeholder is not a whole level, not unique, or
                takes all that follows and is not the last.
        """
        levels: list[str] = []
        names: list[str | None] = []
        for level in self.text.split("/"):
            place = _PLACE.fullmatch(level)
            if place is None and ("{" in level or "}" in level):
                raise ValueError(f'"{level}": a placeholder is a whole level, such as {{device}}')
            names.append(None if place is None else place[1])
            levels.append(level if place is None else "#" if place[2] else "+")
        named = [name for name in names if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f'"{self.text}" names two levels alike')
        wanted = "/".join(levels)
        admit_filter(wanted)
        split = split_filter(wanted)
        object.__setattr__(self, "filter", wanted)
        object.__setattr__(self, "_levels", split)
        object.__setattr__(self, "_names", tuple(names[len(names) - len(split) :]))

    def __str__(self) -> str:
        """Gives the MQTT topic filter."""
        return self.filter

    def matches(self, topic: str) -> bool:
        """Says whether a message on this topic answers the filter [MQTT-4.7.2-1].

        Args:
            topic: Of a message.
        """
        return match(self._levels, topic)

    def read(self, topic: str) -> dict[str, str]:
        """Gives what stands at the named levels.

        Args:
            topic: Topic of a message.

        Raises:
            ValueError: The pattern does not match it.
        """
        if not self.matches(topic):
            raise ValueError(f'"{topic}" does not match "{self.text}"')
        parts = topic.split("/")
        found: dict[str, str] = {}
        for index, (level, name) in enumerate(zip(self._levels, self._names, strict=True)):
            if name is not None:
                # "a/#" also matches "a", where nothing follows.
                found[name] = "/".join(parts[index:]) if level == "#" else parts[index]
        return found

    def topic(self, **values: object) -> str:
        """Gives the topic with these values at the named levels.

        Args:
            values: One for each name, as text; they may hold neither wildcards nor, but for a
                name that takes all that follows, a slash, so that no value can leave its level.

        Raises:
            ValueError: A name is missing or unknown, a value cannot stand there, or the pattern
                has a wildcard without a name.
        """
        unknown = values.keys() - set(self._names)
        if unknown:
            raise ValueError(f'"{self.text}" has no {{{min(unknown)}}}')
        parts = [
            self._fill(level, name, values)
            for level, name in zip(self._levels, self._names, strict=True)
        ]
        topic = "/".join(parts)
        admit_topic(topic)
        return topic

    def _fill(self, level: str, name: str | None, values: dict[str, object]) -> str:
        if name is None:
            if level in ("+", "#"):
                raise ValueError(f'"{self.text}" has a wildcard without a name')
            return level
        if name not in values:
            raise ValueError(f'"{self.text}" needs {name}')
        text = str(values[name])
        if not text or re.search(r"[+#\0]" if level == "#" else r"[+#/\0]", text):
            raise ValueError(f"{name} cannot stand in a topic: {text!r}")
        return text


def matches(topic_filter: str, topic: str) -> bool:
    """Says whether a filter matches a topic, in time that grows with their length alone.

    Args:
        topic_filter: With wildcards; of `$share/GROUP/…` only what follows the group counts.
        topic: Topic name of a message.

    Raises:
        ValueError: The filter cannot be.

    Example:
        ```python
        from casemate.client import matches

        print(matches("lab/+/temp", "lab/1/temp"), matches("#", "$SYS/broker/uptime"))  # True False
        ```

    Source: MQTT 5.0 §4.7.
    """
    admit_filter(topic_filter)
    return match(split_filter(topic_filter), topic)


def topic_fault(topic: str) -> str | None:
    """Says what is wrong with a topic name; None where nothing is."""
    return native.topic_fault(topic) if _is_utf8(topic) else _NO_UTF8


def admit_topic(topic: str) -> None:
    """Raises ValueError where a topic name cannot be."""
    fault = topic_fault(topic)
    if fault is not None:
        raise ValueError(f"invalid topic name: {fault}")


def admit_filter(topic_filter: str) -> None:
    """Raises ValueError where a topic filter cannot be."""
    fault = native.filter_fault(topic_filter) if _is_utf8(topic_filter) else _NO_UTF8
    if fault is not None:
        raise ValueError(f"invalid topic filter: {fault}")


def split_filter(topic_filter: str) -> tuple[str, ...]:
    """Gives the levels of a filter as `match` takes them, without the group of a shared one."""
    levels = tuple(topic_filter.split("/"))
    return levels[2:] if topic_filter.startswith(_SHARE) else levels


def match(levels: tuple[str, ...], topic: str) -> bool:
    """Says whether a filter that was checked and split matches a topic."""
    if levels[0] in ("+", "#") and topic.startswith("$"):  # [MQTT-4.7.2-1]
        return False
    parts = topic.split("/")
    for index, level in enumerate(levels):
        # Looked at before the topic's end: "a/#" matches "a" itself.
        if level == "#":
            return True
        if index == len(parts) or level not in ("+", parts[index]):
            return False
    return len(levels) == len(parts)


def _is_utf8(text: str) -> bool:
    # A lone surrogate stands for what was no UTF-8 on a command line.
    return not any("\ud800" <= character <= "\udfff" for character in text)
