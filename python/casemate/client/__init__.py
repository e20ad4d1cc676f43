"""The asyncio client: MQTT 3.1, 3.1.1 and 5.0 over TLS by default.

Example:
    ```python
    from casemate.client import Client
    from casemate.testing import ThrowAwayBroker

    with ThrowAwayBroker() as broker:
        own = broker.identity("t7")
        files = {"ca_file": own.ca, "cert_file": own.certificate, "key_file": own.key}
        async with Client("localhost", broker.listening().port, **files) as client:
            await client.subscribe("lab/+/temp", qos=1)
            await client.publish("lab/1/temp", "21.5", qos=1)
            async for message in client.messages:
                print(message.topic, message.payload)  # lab/1/temp b'21.5'
                break
    ```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from casemate.client.client import Client
from casemate.client.inbox import Inbox
from casemate.client.link import Limits
from casemate.client.message import Message, Properties, Will
from casemate.client.session import Subscription
from casemate.client.topic import TopicPattern, matches
from casemate.client.trust import trust

if TYPE_CHECKING:
    from casemate.client.blocking import BlockingClient

__all__ = [
    "BlockingClient",
    "Client",
    "Inbox",
    "Limits",
    "Message",
    "Properties",
    "Subscription",
    "TopicPattern",
    "Will",
    "matches",
    "trust",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, or nothing.
    # Loaded when asked for: most programs have an event loop, or the command line's.
    if name == "BlockingClient":
        from casemate.client.blocking import BlockingClient

        return BlockingClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
