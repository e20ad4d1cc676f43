"""The policy, `policy.toml`: what each role may publish and subscribe to; all else is denied.

A policy that is missing, empty, cut short or wrong anywhere is an error as a whole: a part of it
is never put in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from casemate import layout
from casemate.document import Document, Place, nearest
from casemate.errors import CasemateError, PolicyError, UnknownRole
from casemate.names import admit_role_name

FILE_NAME = layout.POLICY

Operation = Literal["publish", "subscribe"]

RuleTuple = tuple[str, str, int, bool, str]
"""Operation, filter, highest QoS, may set the retain flag, and where the rule stands."""

FILTER_BYTES_MAX = 65_535
ROLES_MAX = 1_000
RULES_PER_ROLE_MAX = 1_000

_TEMPLATES = ("%u", "%c")
_RULE_KEYS = ("publish", "subscribe", "both", "qos", "retain")
_OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "publish": ("publish",),
    "subscribe": ("subscribe",),
    "both": ("publish", "subscribe"),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows one operation on the topics of one filter.

    Attributes:
        operation: `publish` or `subscribe`.
        filter: MQTT topic filter; a level `%u` stands for the proven account's name, a level
            `%c` for the client id, which the client chooses itself.
        qos_max: Highest QoS, 0–2.
        retain: Whether a publish may set the retain flag; False for subscribe.
        where: File and line, such as `policy.toml:12`.
    """

    operation: Operation
    filter: str
    qos_max: int
    retain: bool
    where: str


@dataclass(frozen=True)
class Policy:
    """Holds the roles of a policy that was found valid as a whole.

    Attributes:
        file: Where it was read from.
        roles: The rules of each role; a role without rules allows nothing.
    """

    file: Path
    roles: Mapping[str, tuple[Rule, ...]]

    @classmethod
    def load(cls, file: Path) -> Policy:
        """Reads and checks a policy.

        Raises:
            PolicyError: The file is missing, unreadable, empty, not TOML, or wrong anywhere;
                file, line and a hint are set.

        Source: CVE-2018-12550 (an empty file that allowed everything).
        """
        return _read(Document.read(file, PolicyError))

    @classmethod
    def parse(cls, text: str, file: Path = Path(FILE_NAME)) -> Policy:
        """Checks text as if it had been read from `file`.

        Raises:
            PolicyError: As for `load`.
        """
        return _read(Document.parse(text, file, PolicyError))

    def rules(self) -> list[tuple[str, list[RuleTuple]]]:
        """Gives every role with its rules as plain tuples, to be compiled by the engine."""
        return [
            (
                role,
                [(r.operation, r.filter, r.qos_max, r.retain, r.where) for r in rules],
            )
            for role, rules in self.roles.items()
        ]

    def require_roles(self, roles: Iterable[str], user: str) -> None:
        """Refuses roles that the policy does not define.

        Args:
            roles: Names of roles that something holds.
            user: What holds them, for the message, such as `account "t7"`.

        Raises:
            UnknownRole: One of them is not defined.
        """
        for role in roles:
            if role not in self.roles:
                meant = nearest(role, self.roles)
                known = ", ".join(self.roles)
                raise UnknownRole(
                    f"{user} has the role {role!a}, which is not defined",
                    file=self.file,
                    hint=f'did you mean "{meant}"?' if meant else f"defined roles: {known[:200]}",
                )


def default_text() -> str:
    """Gives the `policy.toml` of a new home, with comments that teach."""
    return _DEFAULT_TEXT


def _read(document: Document) -> Policy:
    for key in document.values:
        if key != "roles":
            hint = 'did you mean "roles"?' if nearest(key, ("roles",)) else "use [roles.NAME]"
            raise document.wrong((key,), f"unknown key {ascii(key)[:64]}", hint=hint)
    roles = document.values.get("roles")
    if not isinstance(roles, dict) or not roles:
        raise document.wrong(
            ("roles",), "the policy defines no role", hint="add [roles.NAME] with allow = [ … ]"
        )
    if len(roles) > ROLES_MAX:
        raise document.wrong(("roles",), f"more than {ROLES_MAX:,} roles")
    return Policy(
        document.file, {name: _role(document, name, role) for name, role in roles.items()}
    )


def _role(document: Document, name: str, role: object) -> tuple[Rule, ...]:
    place: Place = ("roles", name)
    try:
        admit_role_name(name)
    except CasemateError as error:
        raise document.wrong(place, error.message, hint=error.hint) from error
    if not isinstance(role, dict):
        raise document.wrong(place, f'role "{name}" is not a table', hint=f"use [roles.{name}]")
    for key in role:
        if key != "allow":
            raise document.wrong(
                (*place, key),
                f'unknown key {ascii(key)[:64]} in role "{name}"',
                hint="a role has one key, allow; what no rule allows is denied",
            )
    allow = role.get("allow")
    if not isinstance(allow, list):
        raise document.wrong(
            (*place, "allow"),
            f'role "{name}" has no list of rules',
            hint="add allow = [ … ]; allow = [] denies everything",
        )
    if len(allow) > RULES_PER_ROLE_MAX:
        raise document.wrong(place, f'role "{name}" has more than {RULES_PER_ROLE_MAX:,} rules')
    rules: list[Rule] = []
    for position, rule in enumerate(allow):
        rules.extend(_rule(document, (*place, "allow", position), rule))
    return tuple(rules)


def _rule(document: Document, place: Place, rule: object) -> list[Rule]:
    if not isinstance(rule, dict):
        raise document.wrong(
            place, "a rule is not a table", hint='write { publish = "some/topic" }'
        )
    for key in rule:
        if key not in _RULE_KEYS:
            meant = nearest(key, _RULE_KEYS)
            raise document.wrong(
                (*place, key),
                f"unknown key {ascii(key)[:64]} in a rule",
                hint=f'did you mean "{meant}"?' if meant else f"use {', '.join(_RULE_KEYS)}",
            )
    words = [key for key in rule if key in _OPERATIONS]
    if len(words) != 1:
        raise document.wrong(
            place,
            "a rule needs exactly one of publish, subscribe and both",
            hint="write one rule for each topic filter",
        )
    word = words[0]
    topic_filter = _admitted_filter(document, (*place, word), rule[word])
    operations = _OPERATIONS[word]
    if "publish" in operations and topic_filter.startswith("$"):
        raise document.wrong(
            (*place, word),
            "topics that begin with $ belong to the broker; no client publishes them",
            hint=f'write {{ subscribe = "{topic_filter}" }}',
        )
    qos_max = _qos(document, (*place, "qos"), rule.get("qos", 2))
    retain = _retain(document, (*place, "retain"), rule.get("retain", False), operations)
    where = f"{document.file.name}:{document.line((*place, word)) or 1}"
    return [
        Rule(operation, topic_filter, qos_max, retain and operation == "publish", where)
        for operation in operations
    ]


def _qos(document: Document, place: Place, qos: object) -> int:
    # True equals 1 in Python; in a policy it is a slip of the pen.
    if isinstance(qos, int) and not isinstance(qos, bool) and 0 <= qos <= 2:
        return qos
    raise document.wrong(
        place, f"qos is {ascii(qos)[:48]}", hint="use 0, 1 or 2: the highest that is allowed"
    )


def _retain(
    document: Document, place: Place, retain: object, operations: tuple[Operation, ...]
) -> bool:
    if not isinstance(retain, bool):
        raise document.wrong(place, f"retain is {ascii(retain)[:48]}", hint="use true or false")
    if retain and "publish" not in operations:
        raise document.wrong(
            place, "retain means nothing in a subscribe rule", hint="remove it from this rule"
        )
    return retain


def _admitted_filter(document: Document, place: Place, text: object) -> str:
    if not isinstance(text, str):
        raise document.wrong(place, "a topic filter is text in quotes")
    wrong = _filter_fault(text)
    if wrong is not None:
        message, hint = wrong
        raise document.wrong(place, f"{message}: {text[:64]!a}", hint=hint)
    return text


def _filter_fault(text: str) -> tuple[str, str] | None:
    """Finds what keeps a text from being a topic filter: the message and the hint."""
    if not text:
        return "the topic filter is empty", 'write "#" for every topic'  # [MQTT-4.7.3-1]
    if len(text.encode("utf-8")) > FILTER_BYTES_MAX:  # [MQTT-4.7.3-3]
        return "the topic filter is too long", f"use at most {FILTER_BYTES_MAX:,} bytes"
    # NUL is forbidden [MQTT-4.7.3-2]; the other control characters only hide what is allowed.
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or (ord(c) & 0xFFFE) == 0xFFFE for c in text):
        return "the topic filter holds a control character", "remove it"
    levels = text.split("/")
    if levels[0] == "$share":
        return (
            "a rule names no share group",
            "write the filter without $share/GROUP/; it covers shared subscriptions too",
        )
    for position, level in enumerate(levels):
        if "#" in level and (level != "#" or position != len(levels) - 1):  # [MQTT-4.7.1-1]
            return "# stands alone in the last level", 'write "a/b/#"'
        if "+" in level and level != "+":  # [MQTT-4.7.1-2]
            return "+ stands alone in its level", 'write "a/+/b"'
        if "%" in level and level not in _TEMPLATES:
            return "% stands only in a level %u or %c of its own", 'write "devices/%u/#"'
    return None


_DEFAULT_TEXT = """\
# What each role may do. What no rule allows is denied.
#
# A rule has one of
#   publish   = "FILTER"   may publish to the topics of this filter
#   subscribe = "FILTER"   may subscribe to them, and receive them
#   both      = "FILTER"   both of these
# and may have
#   qos    = 0, 1 or 2     the highest quality of service (default 2)
#   retain = true          a publish may set the retain flag (default false)
#
# In a filter + stands for one level and # for all levels that follow.
# %u is the name that the client has proven with its certificate or password.
# %c is the client id, which the client chooses itself: it separates, it proves nothing.

# People who look after the system. "#" does not cover topics that begin with $.
[roles.operator]
allow = [
    { both = "#", retain = true },
    { subscribe = "$SYS/#" },
]

# A device that reports what it measures, below its own name, and takes commands.
[roles.sensor]
allow = [
    { publish = "devices/%u/#", qos = 1, retain = true },
    { subscribe = "devices/%u/commands/#" },
]

# A program that watches every device and sends commands.
[roles.console]
allow = [
    { subscribe = "devices/#" },
    { publish = "devices/+/commands/#" },
]
"""
