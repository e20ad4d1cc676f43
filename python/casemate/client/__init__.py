"""The asyncio client: MQTT 3.1, 3.1.1 and 5.0 over TLS by default.

```
async with Client("broker.example", ca_file="ca.crt") as client:
    await client.subscribe("lab/+/temp", qos=1)
    async for message in client.messages:
        print(message.topic, message.payload)
```
"""

from casemate.client.blocking import BlockingClient
from casemate.client.client import Client
from casemate.client.inbox import Inbox
from casemate.client.link import Limits
from casemate.client.message import Message, Properties, Will
from casemate.client.session import Subscription
from casemate.client.topic import TopicPattern, matches
from casemate.client.trust import trust

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
