"""The Rust module: codec, engine and server. Only `native.py` imports it."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Final, final

VERSION: Final[str]

class Malformed(Exception):
    """Received bytes are no packet. Arguments: message, reason code."""

class TooLarge(Exception):
    """A packet passes the receiver's maximum. Arguments: message, packet bytes, maximum."""

class PolicyRefused(Exception):
    """A policy cannot be compiled. Arguments: message, role, place."""

class StartRefused(Exception):
    """The server cannot start. Arguments: message, kind, listener or None."""

class StoreRefused(Exception):
    """A store cannot be used. Arguments: message, kind, what to do."""

class LoadFailed(Exception):
    """A run of the load generator did not come to its report. Arguments: message."""

class LinkLost(Exception):
    """The link of a program to its broker is gone. Arguments: message, reason code or None."""

@final
class Connack:
    session_present: Final[bool]
    reason: Final[int]
    session_expiry_s: Final[int | None]
    receive_max: Final[int | None]
    qos_max: Final[int | None]
    retain_available: Final[bool | None]
    packet_bytes_max: Final[int | None]
    assigned_client_id: Final[str | None]
    topic_alias_max: Final[int | None]
    reason_string: Final[str | None]
    user: Final[list[tuple[str, str]]]
    wildcard_available: Final[bool | None]
    subscription_ids_available: Final[bool | None]
    shared_available: Final[bool | None]
    server_keep_alive_s: Final[int | None]
    response_information: Final[str | None]
    server_reference: Final[str | None]
    authentication_method: Final[str | None]
    authentication_data: Final[bytes | None]

@final
class Publish:
    """A message as it came over the wire, or from the engine to a program inside it."""

    @property
    def dup(self) -> bool:
        """Whether it was sent before (QoS 1 and 2)."""

    @property
    def qos(self) -> int:
        """Of this delivery: 0, 1 or 2."""

    @property
    def retain(self) -> bool:
        """Whether it was stored before the subscription asked for it."""

    @property
    def topic(self) -> str:
        """Topic name; may be empty on the wire, where an alias stands for it, and never inside."""

    @property
    def packet_id(self) -> int | None:
        """1–65,535; None at QoS 0."""

    @property
    def payload(self) -> bytes:
        """The bytes as they were published."""

    @property
    def payload_is_text(self) -> bool | None:
        """Whether the publisher calls it UTF-8; None where it says nothing."""

    @property
    def message_expiry_s(self) -> int | None:
        """Seconds that it is still worth; None without end."""

    @property
    def topic_alias(self) -> int | None:
        """1–65,535; None without one."""

    @property
    def response_topic(self) -> str | None:
        """Where an answer should go; None where none is asked for."""

    @property
    def correlation_data(self) -> bytes | None:
        """What an answer should repeat."""

    @property
    def user(self) -> list[tuple[str, str]]:
        """User properties, in order; names may repeat."""

    @property
    def subscription_ids(self) -> list[int]:
        """Numbers of the subscriptions that it answers."""

    @property
    def content_type(self) -> str | None:
        """What the payload is, such as `application/json`."""

@final
class Ack:
    kind: Final[str]
    packet_id: Final[int]
    reason: Final[int]
    reason_string: Final[str | None]
    user: Final[list[tuple[str, str]]]

@final
class Suback:
    packet_id: Final[int]
    codes: Final[tuple[int, ...]]
    reason_string: Final[str | None]
    user: Final[list[tuple[str, str]]]

@final
class Unsuback:
    packet_id: Final[int]
    codes: Final[tuple[int, ...]]
    reason_string: Final[str | None]
    user: Final[list[tuple[str, str]]]

@final
class Pingresp: ...

@final
class Disconnect:
    reason: Final[int]
    reason_string: Final[str | None]
    user: Final[list[tuple[str, str]]]
    server_reference: Final[str | None]

@final
class Auth:
    @property
    def reason(self) -> int: ...
    @property
    def method(self) -> str | None: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def reason_string(self) -> str | None: ...
    @property
    def user(self) -> list[tuple[str, str]]: ...

Packet = Connack | Publish | Ack | Suback | Unsuback | Pingresp | Disconnect | Auth

@final
class Decoder:
    def __new__(cls, version: int, packet_bytes_max: int) -> Decoder: ...
    def feed(self, data: bytes, /) -> list[Packet]: ...
    def check(self) -> None: ...

@final
class Will:
    def __new__(
        cls,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        delay_s: int | None = None,
        payload_is_text: bool | None = None,
        message_expiry_s: int | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        user: list[tuple[str, str]] = ...,
    ) -> Will: ...

def encode_connect(
    version: int,
    client_id: str,
    *,
    clean_start: bool = True,
    keep_alive_s: int = 60,
    username: str | None = None,
    password: bytes | None = None,
    will: Will | None = None,
    session_expiry_s: int | None = None,
    receive_max: int | None = None,
    packet_bytes_max: int | None = None,
    topic_alias_max: int | None = None,
    request_response_information: bool | None = None,
    request_problem_information: bool | None = None,
    user: list[tuple[str, str]] = ...,
    authentication_method: str | None = None,
    authentication_data: bytes | None = None,
) -> bytes: ...
def encode_publish(
    version: int,
    topic: str,
    payload: bytes,
    *,
    qos: int = 0,
    retain: bool = False,
    dup: bool = False,
    packet_id: int | None = None,
    packet_bytes_max: int = ...,
    payload_is_text: bool | None = None,
    message_expiry_s: int | None = None,
    topic_alias: int | None = None,
    response_topic: str | None = None,
    correlation_data: bytes | None = None,
    user: list[tuple[str, str]] = ...,
    content_type: str | None = None,
) -> bytes: ...
def encode_ack(version: int, kind: str, packet_id: int, reason: int = 0) -> bytes: ...
def encode_subscribe(
    version: int,
    packet_id: int,
    filters: list[tuple[str, int, bool, bool, int]],
    *,
    subscription_id: int | None = None,
    user: list[tuple[str, str]] = ...,
    packet_bytes_max: int = ...,
) -> bytes: ...
def encode_unsubscribe(
    version: int,
    packet_id: int,
    filters: list[str],
    *,
    user: list[tuple[str, str]] = ...,
    packet_bytes_max: int = ...,
) -> bytes: ...
def encode_disconnect(
    version: int, *, reason: int = 0, session_expiry_s: int | None = None
) -> bytes: ...
def encode_auth(reason: int, method: str, data: bytes | None = None) -> bytes: ...
def encode_pingreq() -> bytes: ...
def topic_fault(topic: str, /) -> str | None: ...
def filter_fault(filter: str, /) -> str | None: ...
def prime() -> None: ...
def reason_name(reason: int, /) -> str | None: ...

@final
class Listener:
    def __new__(
        cls,
        name: str,
        host: str,
        port: int,
        *,
        unix_path: str | None = None,
        unix_mode: int = 0o600,
        certificate_pem: bytes | None = None,
        key_pem: bytes | None = None,
        client_ca_pem: bytes | None = None,
        client_certificates: str = "none",
        tls12: bool = False,
        anonymous_role: str | None = None,
        websocket_path: str | None = None,
        websocket_origins: Sequence[str] = ...,
        proxy_from: Sequence[str] = ...,
        max_connections: int | None = None,
    ) -> Listener: ...

@final
class Policy:
    def __new__(
        cls, epoch: int, roles: list[tuple[str, list[tuple[str, str, int, bool, str]]]]
    ) -> Policy: ...
    @property
    def epoch(self) -> int: ...

@final
class Question:
    @property
    def id(self) -> int: ...
    @property
    def listener(self) -> str: ...
    @property
    def address(self) -> str | None: ...
    @property
    def client_id(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def password(self) -> bytes: ...

@final
class Admission:
    @property
    def id(self) -> int: ...
    @property
    def listener(self) -> str: ...
    @property
    def address(self) -> str | None: ...
    @property
    def client_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def roles(self) -> list[str]: ...
    @property
    def proven_by(self) -> str: ...
    @property
    def version(self) -> int: ...

@final
class Event:
    """Something that happened; what a peer wrote stands in it unescaped."""

    @property
    def time_unix_ms(self) -> int:
        """When, in milliseconds of Unix time."""

    @property
    def shard(self) -> int:
        """Number of the shard that saw it, from 0."""

    @property
    def listener(self) -> str | None:
        """Name of the listener; None where there is none."""

    @property
    def address(self) -> str | None:
        """The peer's `host:port`; None on a unix socket."""

    @property
    def client_id(self) -> str:
        """As the peer wrote it; escape it before it is shown."""

    @property
    def principal(self) -> str:
        """Who it has proven to be; empty before that."""

    @property
    def kind(self) -> str:
        """One word, such as `connected`; see the events of the reference."""

    @property
    def detail(self) -> str:
        """What belongs to the kind, such as the topic; may be empty."""

    @property
    def reason(self) -> int | None:
        """Code of MQTT 5.0 that a refused peer was told; None where there is none."""

@final
class Link:
    def publish(
        self,
        messages: list[tuple[str, bytes] | tuple[str, bytes, int] | tuple[str, bytes, int, bool]],
        /,
    ) -> list[tuple[int, int]]: ...
    def subscribe(self, filters: list[tuple[str, int]], /) -> list[int]: ...
    def receive(self, count: int, timeout_s: float) -> list[Publish]: ...
    def keep_alive(self) -> float | None: ...
    def fileno(self) -> int: ...
    def is_silent(self) -> bool: ...
    def close(self) -> None: ...

@final
class Server:
    @staticmethod
    def start(
        listeners: list[Listener],
        accounts: list[tuple[bytes, str, list[str], int]],
        policy: Policy,
        *,
        limits: dict[str, int],
        shards: int = 1,
        question_max: int = 1024,
        consult: bool = False,
        admissions_max: int = 1024,
        events_max: int = 16384,
        sys_interval_s: int = 10,
        inherited: list[tuple[str, int]] = ...,
        store: Store | None = None,
    ) -> Server: ...
    def install_listeners(self, listeners: list[Listener]) -> bool: ...
    def enter(self, name: str, roles: list[str]) -> Link: ...
    def addresses(self) -> list[tuple[str, str, int]]: ...
    def next_question(self, timeout_s: float) -> Question | None: ...
    def grant(
        self,
        question: int,
        name: str,
        roles: list[str],
        *,
        client_id_bound: bool = False,
        until_s: int | None = None,
    ) -> bool: ...
    def refuse(self, question: int, reason: int) -> bool: ...
    def consult(self, is_wanted: bool) -> None: ...
    def next_admission(self, timeout_s: float) -> Admission | None: ...
    def admit(self, admission: int) -> bool: ...
    def turn_away(self, admission: int, reason: int) -> bool: ...
    def install_accounts(self, accounts: list[tuple[bytes, str, list[str], int]]) -> None: ...
    def install_policy(self, policy: Policy) -> None: ...
    def wait_policy_in_force(self, epoch: int, timeout_s: float) -> bool: ...
    def expel(self, name: str, *, end_sessions: bool) -> None: ...
    def next_events(self, count: int, timeout_s: float) -> tuple[list[Event], int]: ...
    def counters(self) -> dict[str, int]: ...
    def store_health(self) -> StoreHealth | None: ...
    def makes_progress(self, timeout_s: float) -> bool: ...
    def failed(self) -> str | None: ...
    def drain(self, deadline_s: float, server_reference: str | None = None) -> bool: ...
    def stop(self, deadline_s: float) -> bool: ...

@final
class Store:
    def __new__(
        cls,
        folder: str | PathLike[str],
        *,
        durability: str = "disk",
        key: bytes | None = None,
        former_keys: list[bytes] = ...,
        reads_plain: bool = False,
    ) -> Store: ...
    def inspect(self) -> StoreReport: ...
    def backup(self, target: str | PathLike[str]) -> StoreCopy: ...
    def compact(self) -> StoreCompacted: ...
    def export(
        self,
        session: Callable[[dict[str, Any]], object],
        retained: Callable[[int, dict[str, Any]], object],
    ) -> None: ...
    def fill(self) -> StoreFilling: ...

@final
class StoreFilling:
    def session(self, session: dict[str, Any]) -> None: ...
    def retained(self, tenant: int, message: dict[str, Any]) -> None: ...
    def finish(self) -> None: ...

@final
class StoreReport:
    segments: Final[list[StoreSegment]]
    retired: Final[list[tuple[int, int]]]
    set_aside: Final[list[str]]
    next_number: Final[int]
    commits: Final[int]
    batches: Final[int]
    batch_bytes: Final[int]
    torn_bytes: Final[int]
    damage: Final[list[str]]

@final
class StoreSegment:
    name: Final[str]
    format: Final[int]
    key: Final[str | None]
    bytes: Final[int]
    commits: Final[int]
    numbers: Final[tuple[int, int] | None]
    torn_bytes: Final[int]
    is_damaged: Final[bool]

@final
class StoreCopy:
    segments: Final[int]
    bytes: Final[int]

@final
class StoreCompacted:
    sessions: Final[int]
    retained: Final[int]
    bytes_before: Final[int]
    bytes_after: Final[int]
    segments_gone: Final[int]

@final
class StoreHealth:
    failing: Final[str | None]
    is_full: Final[bool]
    failures: Final[int]
    damage: Final[list[str]]
    commits_read: Final[int]
    bytes_read: Final[int]
    read_ms: Final[int]

@final
class LoadTarget:
    def __new__(
        cls,
        address: str,
        port: int,
        *,
        version: int = 5,
        client_id: str = ...,
        username: str | None = None,
        password: bytes | None = None,
        keep_alive_s: int = 60,
        server_name: str | None = None,
        trusted_pem: bytes = ...,
        chain_pem: bytes | None = None,
        key_pem: bytes | None = None,
        resume: bool = False,
        websocket_host: str | None = None,
        websocket_path: str | None = None,
    ) -> LoadTarget: ...

@final
class Distribution:
    count: Final[int]
    least_ns: Final[int]
    mean_ns: Final[int]
    p50_ns: Final[int]
    p90_ns: Final[int]
    p99_ns: Final[int]
    p999_ns: Final[int]
    most_ns: Final[int]

@final
class LoadStanding:
    ready: Final[int]
    connected: Final[int]
    failed: Final[int]
    published: Final[int]
    delivered: Final[int]
    reads: Final[int]
    writes: Final[int]

@final
class LoadReport:
    measured_s: Final[float]
    setup_s: Final[float]
    ended_early: Final[bool]
    published: Final[int]
    delivered: Final[int]
    connected: Final[int]
    failed: Final[int]
    first_failure: Final[str | None]
    reads: Final[int]
    writes: Final[int]
    expected: Final[int]
    lost: Final[int]
    duplicated: Final[int]
    reordered: Final[int]
    misrouted: Final[int]
    qos_changed: Final[int]
    refused: Final[int]
    unacknowledged: Final[int]
    unsent: Final[int]
    stalls: Final[int]
    latency: Final[Distribution]
    lateness: Final[Distribution]
    connecting: Final[Distribution]

def run_load(
    target: LoadTarget,
    watch: Callable[[str, LoadStanding], bool],
    *,
    shape: str,
    publishers: int = 1,
    subscribers: int = 1,
    connections: int = 1,
    window: int = 4000,
    rate_per_s: float | None = None,
    publish_qos: int = 0,
    subscribe_qos: int = 0,
    payload_bytes: int = 64,
    retain: bool = False,
    topic_alias: bool = False,
    properties: bool = False,
    lasting_s: int | None = None,
    left_behind: bool = False,
    inflight_max: int = 20,
    topic: str = ...,
    topics_per_publisher: int = 1,
    single_filters: bool = False,
    connecting_max: int = 32,
    warm_up_s: float = 1.0,
    measured_s: float = 5.0,
    grace_s: float = 2.0,
    setup_max_s: float = 60.0,
    messages_max: int = 4_294_967_295,
) -> LoadReport: ...
