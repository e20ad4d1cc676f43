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

from casemate.broker.broker import Broker, reachable
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
    Stranger,
)
from casemate.broker.inside import Publisher, Subscriber
from casemate.broker.request import ask as ask_to_reload
from casemate.broker.status import Listening, Reload, Status, is_served, read_status
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
    "Stranger",
    "Subscriber",
    "ask_to_reload",
    "is_served",
    "reachable",
    "read_status",
    "weakenings",
]
