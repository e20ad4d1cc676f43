"""The broker: the Rust engine inside this process, fed from a home and stopped in order.

Example:
    ```python
    from casemate.broker import Broker, reachable
    from casemate.home import Home

    with Broker() as broker:  # a throw-away home, for programs and tests
        print(broker.addresses[0].kind, reachable("0.0.0.0"))  # tls 127.0.0.1

    Home.init("lab")
    broker = Broker("lab")  # a home that stays
    print(broker.home.name)  # lab
    ```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from casemate.broker.broker import Broker
    from casemate.broker.events import (
        AcceptFailed,
        AccountGone,
        Connected,
        Connecting,
        Denied,
        Disconnected,
        Event,
        LimitReached,
        Malformed,
        Missed,
        PeerEvent,
        QueueFull,
        SessionChanged,
        StoreDamaged,
        StoreFailing,
        StoreRecovered,
        Stranger,
    )
    from casemate.broker.inside import Publisher, Subscriber
    from casemate.broker.request import ask as ask_to_reload
    from casemate.broker.status import (
        Listening,
        Reload,
        Status,
        StoreStatus,
        is_served,
        reachable,
        read_status,
    )
    from casemate.broker.stream import EventStream
    from casemate.broker.watch import Problem
    from casemate.config import weakenings
    from casemate.errors import ConnectRefused

__all__ = [
    "AcceptFailed",
    "AccountGone",
    "Broker",
    "ConnectRefused",
    "Connected",
    "Connecting",
    "Denied",
    "Disconnected",
    "Event",
    "EventStream",
    "LimitReached",
    "Listening",
    "Malformed",
    "Missed",
    "PeerEvent",
    "Problem",
    "Publisher",
    "QueueFull",
    "Reload",
    "SessionChanged",
    "Status",
    "StoreDamaged",
    "StoreFailing",
    "StoreRecovered",
    "StoreStatus",
    "Stranger",
    "Subscriber",
    "ask_to_reload",
    "is_served",
    "reachable",
    "read_status",
    "weakenings",
]

_ROOMS = {
    "Broker": "casemate.broker.broker",
    "Publisher": "casemate.broker.inside",
    "Subscriber": "casemate.broker.inside",
    "EventStream": "casemate.broker.stream",
    "Problem": "casemate.broker.watch",
    "weakenings": "casemate.config",
    "ConnectRefused": "casemate.errors",
    **dict.fromkeys(
        ("Listening", "Reload", "Status", "StoreStatus", "is_served", "reachable", "read_status"),
        "casemate.broker.status",
    ),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - classes and functions of several rooms.
    # Loaded when asked for: a client that only looks where the broker of a home listens needs
    # neither engine nor account store. The rest are the events.
    if name == "ask_to_reload":
        found = import_module("casemate.broker.request").ask
    elif name in __all__:
        found = getattr(import_module(_ROOMS.get(name, "casemate.broker.events")), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Kept, so that it is asked for once.
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
