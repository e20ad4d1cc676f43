"""casemate: a secure MQTT system for Python people.

Example:
    ```python
    from casemate import Broker

    async with Broker() as broker, broker.client("probe") as client:
        await client.subscribe("lab/+/temp")
        await client.publish("lab/1/temp", "21.5")
        async for message in client.messages:
            print(message.topic, message.text)  # lab/1/temp 21.5
            break
    ```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from casemate.broker import Broker
    from casemate.client import Client, Message, Will

__version__ = "0.1.0"

__all__ = ["Broker", "Client", "Message", "Will", "__version__"]

_ROOMS = {
    "Broker": "casemate.broker",
    "Client": "casemate.client",
    "Message": "casemate.client",
    "Will": "casemate.client",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - classes of several rooms.
    # Loaded when asked for: `casemate device add` needs no engine, and a reader of
    # `casemate.errors` nothing at all.
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
