"""What a broker tells a program: one frozen value for each event, and for each question.

```
Event
├── PeerEvent                     something about one peer
│   ├── Connected                 a client is in
│   ├── Disconnected              a connection has ended, and why
│   ├── SessionChanged            a session was made, resumed, taken over, or has expired
│   ├── Denied                    somebody was not allowed what it wanted
│   ├── Malformed                 a client broke the protocol
│   ├── QueueFull                 a session's queue refuses messages
│   ├── LimitReached              a client, or the broker, ran into a limit
│   ├── AccountGone               a connection was closed as its account has changed or is gone
│   └── Stranger                  somebody did not get as far as MQTT
├── AcceptFailed                  connections cannot be accepted
├── StoreFailing                  nothing can be kept, so that no promise is made
├── StoreRecovered                all is kept again
├── StoreDamaged                  what was kept before is not there whole
└── Missed                        events that came faster than they were taken
Connecting                        a client that has proven who it is: may it come in?
```

What a peer has chosen (`client_id`, `topic`, parts of `cause`) stands in them as it came: escape it
before it is shown or logged.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from casemate import native

ProvenBy = Literal["certificate", "password", "nothing"]
Cause = Literal[
    "goodbye",
    "transport",
    "handshake",
    "refused",
    "keep-alive",
    "connect-deadline",
    "slow-reader",
    "taken-over",
    "stopping",
]
Change = Literal["made", "resumed", "taken-over", "expired"]
Action = Literal["connect", "publish", "subscribe", "will"]
Oddity = Literal[
    "handshake-failed",
    "handshake-timeout",
    "plain-on-tls",
    "tls-on-plain",
    "proxy-refused",
    "http-on-mqtt",
    "plain-on-websocket",
    "upgrade-refused",
    "frame-refused",
    "empty-records",
]

_NOT_AUTHORIZED = 0x87
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    """Asks whether a client may come in that has proven who it is; not yet connected.

    Attributes:
        listener: Name of the listener.
        address: `host:port` of the peer, behind a load balancer the one that its PROXY header
            names; None on a unix socket.
        client_id: As the client wrote it; empty where the broker is to choose one.
        name: Who it has proven to be: its account, or for a client that proved nothing a name
            that nobody has.
        roles: Its roles of the policy.
        proven_by: `certificate`, `password`, or `nothing` on a listener with an anonymous role.
        version: MQTT 3.1 (3), 3.1.1 (4) or 5.0 (5).
    """

    listener: str
    address: str | None
    client_id: str
    name: str
    roles: tuple[str, ...]
    proven_by: ProvenBy
    version: Literal[3, 4, 5]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Says that something has happened.

    Attributes:
        time_unix_ms: When, in milliseconds of Unix time.
    """

    time_unix_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEvent(Event):
    """Says that something has happened with a peer.

    Attributes:
        listener: Name of the listener; None where no connection has a part in it.
        address: `host:port`; None on a unix socket, and where no connection has a part in it.
        client_id: As the client wrote it; empty before CONNECT.
        name: Who it has proven to be; empty before that.
    """

    listener: str | None
    address: str | None
    client_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(PeerEvent):
    """Says that a client is in.

    Attributes:
        session_present: Whether it has resumed a session.
    """

    session_present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(PeerEvent):
    """Says that a connection has ended.

    Attributes:
        cause: `goodbye` (DISCONNECT of the client), `transport` (the peer closed, or the network
            failed), `handshake` (a layer below MQTT), `refused` (the broker closed it),
            `keep-alive`, `connect-deadline`, `slow-reader`, `taken-over` (by the same session) or
            `stopping`.
        reason_code: Of a `refused` one; else None.
    """

    cause: Cause
    reason_code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionChanged(PeerEvent):
    """Says what has become of a session, as far as the broker tells.

    A session that ends with its connection ends without an event of its own; see `Disconnected`.

    Attributes:
        change: `made`, `resumed`, `taken-over` (another connection has it now; this event is
            about the one before) or `expired`.
    """

    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied(PeerEvent):
    """Says that somebody was not allowed what it wanted.

    Those of one peer and topic that wait for the same reader become one with their number; where
    many wait, those of one peer do, with the latest topic. Of a connection that publishes again
    and again where it may not, the broker tells the first, second, fourth, eighth … time.

    Attributes:
        action: `connect`, `publish`, `subscribe` or `will`.
        topic: Topic or filter; empty for `connect`.
        roles: Roles of the account as configured now; empty for who has none or is not known.
        reason: Why: the rule that is missing, what the proof lacked, or what a hook has said.
        reason_code: What an MQTT 5.0 client sees.
        count: Events that this one stands for, at least 1.
    """

    action: Action
    topic: str
    roles: tuple[str, ...]
    reason: str
    reason_code: int
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed(PeerEvent):
    """Says that a client broke the protocol; it is disconnected.

    Attributes:
        cause: What was wrong, in words.
    """

    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFull(PeerEvent):
    """Says that the queue of a session is full; said once until it has room again.

    Attributes:
        refused: Messages that it has refused so far.
    """

    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached(PeerEvent):
    """Says that somebody ran into a limit; of the broker itself where it names nobody.

    Attributes:
        limit: Name of the limit.
    """

    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountGone(PeerEvent):
    """Says that a live connection was closed because its account has changed or is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger(PeerEvent):
    """Says that somebody did not get as far as MQTT; once in ten seconds for each address.

    Attributes:
        oddity: What it did: `handshake-failed`, `handshake-timeout`, `plain-on-tls`,
            `tls-on-plain`, `proxy-refused`, `http-on-mqtt`, `plain-on-websocket`,
            `upgrade-refused`, `frame-refused` or `empty-records`.
        cause: In words; may be empty.
    """

    oddity: Oddity
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptFailed(Event):
    """Says that connections cannot be accepted; once for each burst.

    Attributes:
        listener: Name of the listener; None for all of them.
        cause: What the system says, or that there are as many connections as there may be.
    """

    listener: str | None
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailing(Event):
    """Says that nothing can be kept; told once, when it begins.

    Until it works again a message that must be kept is refused (0x97, MQTT 5.0) or not
    acknowledged, so that its publisher keeps it. All else goes on.

    Attributes:
        is_full: Whether room on its disk would help.
        cause: What the system says.
    """

    is_full: bool
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecovered(Event):
    """Says that all is kept again.

    Attributes:
        batches: Batches of records that had to wait, each of one shard's turn.
    """

    batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDamaged(Event):
    """Says at the start that what was kept is not there whole; the rest is served.

    Attributes:
        damage: The file and what is missing, in words.
    """

    damage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed(Event):
    """Says that events came faster than they were taken; stands where they would have stood.

    Attributes:
        count: How many are missing, of whatever kind.
    """

    count: int


RolesOf = Callable[[str], tuple[str, ...]]


class Reading:
    """Turns the engine's events into those of a program."""

    def __init__(self, roles_of: RolesOf) -> None:
        """Remembers nothing yet.

        Args:
            roles_of: Gives the roles of an account by name; empty where there is none.
        """
        self._roles_of = roles_of
        self._lock = threading.Lock()
        self._refusals: dict[tuple[str | None, str], tuple[str, str]] = {}

    def note_refusal(self, asked: Connecting, reason: str) -> None:
        """Remembers what a hook said about somebody until the engine tells of the refusal."""
        with self._lock:
            while len(self._refusals) >= REFUSALS_NOTED_MAX:
                # The oldest: its client has left before it could be told.
                del self._refusals[next(iter(self._refusals))]
            self._refusals[asked.address, asked.client_id] = (asked.name, reason)

    def read(self, told: Iterable[native.Event]) -> Iterator[Event]:
        """Gives the events, in order; a client that comes in is one of two."""
        for one in told:
            yield from _READERS[one.kind](self, one)

    def denied(self, one: native.Event, action: Action) -> Iterator[Event]:
        """Reads a refusal by policy or by proof."""
        name, topic, reason = one.principal, one.detail, ""
        if action == "connect":
            topic, reason = "", one.detail
            with self._lock:
                noted = self._refusals.pop((one.address, one.client_id), None)
            name, reason = noted or (name, reason)
        roles = self._roles_of(name) if name else ()
        yield Denied(
            time_unix_ms=one.time_unix_ms,
            listener=one.listener,
            address=one.address,
            client_id=one.client_id,
            name=name,
            action=action,
            topic=topic,
            roles=roles,
            reason=reason or _missing_rule(action, topic, roles),
            reason_code=_NOT_AUTHORIZED if one.reason is None else one.reason,
        )


REFUSALS_NOTED_MAX: Final = 1_024
"""Refusals of hooks that the engine has not told of yet; beyond them only the code is known."""


def _missing_rule(action: Action, topic: str, roles: tuple[str, ...]) -> str:
    """Says which rule there is not: without one that allows it, everything is denied."""
    if topic.startswith("$SYS/") and action != "subscribe":
        return "the broker alone publishes below $SYS/"
    if not roles:
        return "no rule allows it"
    named = ", ".join(f'"{role}"' for role in roles)
    return f"no rule of role {named} allows it"


def _peer(one: native.Event) -> tuple[int, str | None, str | None, str, str]:
    return one.time_unix_ms, one.listener, one.address, one.client_id, one.principal


def _about(kind: type[PeerEvent], one: native.Event, **own: object) -> PeerEvent:
    time_unix_ms, listener, address, client_id, name = _peer(one)
    values = {"listener": listener, "address": address, "client_id": client_id, "name": name}
    return kind(time_unix_ms=time_unix_ms, **values, **own)  # type: ignore[arg-type]


def _connected(_: Reading, one: native.Event) -> Iterator[Event]:
    resumed = one.detail == "resumed"
    yield _about(Connected, one, session_present=resumed)
    yield _about(SessionChanged, one, change="resumed" if resumed else "made")


def _disconnected(_: Reading, one: native.Event) -> Iterator[Event]:
    # The engine's own word, as in KeepAlive or Refused(Banned).
    word = _WORD_START.sub("-", one.detail.partition("(")[0]).lower()
    yield _about(Disconnected, one, cause=cast(Cause, word), reason_code=one.reason)


def _session(change: Change) -> _Reader:
    return lambda _, one: iter((_about(SessionChanged, one, change=change),))


def _denied(action: Action) -> _Reader:
    return lambda reading, one: reading.denied(one, action)


def _stranger(_: Reading, one: native.Event) -> Iterator[Event]:
    yield _about(Stranger, one, oddity=cast(Oddity, one.kind), cause=one.detail)


def _accepting(_: Reading, one: native.Event) -> Iterator[Event]:
    cause = one.detail or "there are as many connections as there may be"
    yield AcceptFailed(time_unix_ms=one.time_unix_ms, listener=one.listener, cause=cause)


def _failing(_: Reading, one: native.Event) -> Iterator[Event]:
    is_full = one.kind == "store-full"
    yield StoreFailing(time_unix_ms=one.time_unix_ms, is_full=is_full, cause=one.detail)


def _recovered(_: Reading, one: native.Event) -> Iterator[Event]:
    yield StoreRecovered(time_unix_ms=one.time_unix_ms, batches=int(one.detail))


def _damaged(_: Reading, one: native.Event) -> Iterator[Event]:
    yield StoreDamaged(time_unix_ms=one.time_unix_ms, damage=one.detail)


_Reader = Callable[[Reading, native.Event], Iterator[Event]]

_READERS: dict[str, _Reader] = {
    "connected": _connected,
    "disconnected": _disconnected,
    "taken-over": _session("taken-over"),
    "session-expired": _session("expired"),
    "authentication-refused": _denied("connect"),
    "publish-denied": _denied("publish"),
    "subscribe-denied": _denied("subscribe"),
    "will-denied": _denied("will"),
    "malformed": lambda _, one: iter((_about(Malformed, one, cause=one.detail),)),
    "overflow": lambda _, one: iter((_about(QueueFull, one, refused=int(one.detail)),)),
    "limit-reached": lambda _, one: iter((_about(LimitReached, one, limit=one.detail),)),
    "account-gone": lambda _, one: iter((_about(AccountGone, one),)),
    "accept-failed": _accepting,
    "connections-full": _accepting,
    "store-failing": _failing,
    "store-full": _failing,
    "store-recovered": _recovered,
    "store-damaged": _damaged,
    **dict.fromkeys(get_args(Oddity), _stranger),
}
