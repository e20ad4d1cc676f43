"""What `casemate bench` does to a broker: options, and how they become a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from casemate.cli.console import WrongUsage

Shape = Literal["fan-in", "fan-out", "pairs", "shared", "connects", "idle"]

# Publishers and subscribers where the command line names none; connections have neither.
_USUAL = {"fan-in": (50, 1), "fan-out": (1, 100), "pairs": (50, 50), "shared": (50, 4)}
_USUAL_CONNECTIONS = 1_000
_MESSAGES_MAX = 4_294_967_295


@dataclass(slots=True, kw_only=True)
class Workload:
    """Collects what is done to a broker; each field is an option of the command line."""

    shape: Annotated[Shape, typer.Argument(help="Who sends what to whom.", show_default=False)]
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[URL]", show_default=False, help="Broker.")
    ] = None
    publishers: Annotated[
        int | None, typer.Option("--publishers", min=1, help="Clients that publish.")
    ] = None
    subscribers: Annotated[
        int | None, typer.Option("--subscribers", min=1, help="Clients that subscribe.")
    ] = None
    connections: Annotated[
        int | None, typer.Option("--connections", min=1, help="Of connects and idle.")
    ] = None
    qos: Annotated[int, typer.Option("-q", "--qos", min=0, max=2, help="QoS.")] = 0
    subscribe_qos: Annotated[
        int | None, typer.Option("--subscribe-qos", min=0, max=2, help="Other than --qos.")
    ] = None
    payload: Annotated[
        int, typer.Option("--payload", min=16, max=268_000_000, help="Bytes of each message.")
    ] = 64
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, help="Messages or connections a second, in all."),
    ] = None
    window: Annotated[
        int, typer.Option("--window", min=1, max=1_000_000, help="Without --rate: under way.")
    ] = 4_000
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=10_000, help="Connections that begin together.")
    ] = 32
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=3_600, help="Measured time.")
    ] = 5.0
    warm_up: Annotated[
        float, typer.Option("--warm-up", min=0, max=600, help="Seconds before it; 0 with --count.")
    ] = 1.0
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, max=_MESSAGES_MAX, help="Messages after which it ends."),
    ] = None
    topic: Annotated[
        str | None, typer.Option("-t", "--topic", help="What topics begin with (default: random).")
    ] = None
    topics: Annotated[
        int, typer.Option("--topics", min=1, max=2_000_000, help="Topics of each publisher.")
    ] = 1
    single_filters: Annotated[
        bool,
        typer.Option("--single-filters", help="A subscription for each topic; 20 % with a +."),
    ] = False
    lasting: Annotated[
        int | None,
        typer.Option(
            "--lasting",
            min=1,
            max=4_294_967_294,
            metavar="SECONDS",
            help="Subscribers' sessions outlive their connections, so long (before 5: as the "
            "broker likes); discarded at the end.",
        ),
    ] = None
    leave_sessions: Annotated[
        bool, typer.Option("--leave-sessions", help="Of --lasting: do not discard them.")
    ] = False
    alias: Annotated[bool, typer.Option("--alias", help="Use a topic alias (5).")] = False
    with_properties: Annotated[
        bool, typer.Option("--properties", help="Send three properties with each message (5).")
    ] = False

    @property
    def is_storm(self) -> bool:
        """True where clients connect and send no messages."""
        return self.shape in ("connects", "idle")

    @property
    def granted_qos(self) -> int:
        """QoS of the subscriptions."""
        return self.qos if self.subscribe_qos is None else self.subscribe_qos

    @property
    def clients(self) -> int:
        """Clients that are connected at the same time."""
        connections = self.connections or _USUAL_CONNECTIONS
        if self.shape == "connects":
            return min(connections, self.at_once)
        return connections if self.shape == "idle" else sum(self._sides())

    def plan(self, in_flight: int, topic: str | None) -> dict[str, Any]:
        """Gives the keyword arguments of `native.run_load`.

        Args:
            in_flight: Messages of QoS 1 and 2 that a publisher may have unacknowledged.
            topic: Of the URL; None where it has none.

        Raises:
            WrongUsage: Two options contradict each other.
        """
        import secrets

        if topic is not None and self.topic is not None:
            raise WrongUsage("the URL and -t both name a topic; leave one out")
        if self.is_storm and (self.publishers or self.subscribers):
            raise WrongUsage(f"{self.shape} has --connections only")
        if not self.is_storm and self.connections:
            raise WrongUsage("--connections belongs to connects and idle")
        if self.lasting is not None and self.shape == "connects":
            raise WrongUsage("connects has no subscribers whose sessions could last")
        if self.leave_sessions and self.lasting is None:
            raise WrongUsage("--leave-sessions belongs to --lasting")
        publishers, subscribers = self._sides()
        if self.shape == "pairs" and publishers != subscribers:
            raise WrongUsage("pairs have as many publishers as subscribers")
        return {
            "shape": self.shape,
            "publishers": publishers,
            "subscribers": subscribers,
            "connections": self.connections or _USUAL_CONNECTIONS,
            "window": self.window,
            "rate_per_s": self.rate,
            "publish_qos": self.qos,
            "subscribe_qos": self.granted_qos,
            "payload_bytes": self.payload,
            "topic_alias": self.alias,
            "properties": self.with_properties,
            "lasting_s": self.lasting,
            "left_behind": self.leave_sessions,
            "inflight_max": in_flight,
            # Nobody else's messages may be taken for ours, nor ours for those of another run.
            "topic": self.topic or topic or f"bench/{secrets.token_hex(4)}",
            "topics_per_publisher": self.topics,
            "single_filters": self.single_filters,
            "connecting_max": self.at_once,
            # So many messages might all be gone before anything was measured.
            "warm_up_s": self.warm_up if self.count is None else 0.0,
            "measured_s": self.seconds,
            "messages_max": self.count or _MESSAGES_MAX,
        }

    def _sides(self) -> tuple[int, int]:
        """Gives publishers and subscribers; of pairs either is enough."""
        publishers, subscribers = _USUAL.get(self.shape, (0, 0))
        if self.shape == "pairs" and (self.publishers or self.subscribers):
            publishers = subscribers = self.publishers or self.subscribers or 0
        return self.publishers or publishers, self.subscribers or subscribers
