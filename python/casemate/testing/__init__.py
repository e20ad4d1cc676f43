"""For tests of programs that speak MQTT: throw-away brokers, identities and network faults.

pytest finds the fixtures by itself (`casemate_broker`, `casemate_client`, `casemate_relay`,
`casemate_ca`); outside pytest the classes do the same.

Example:
    ```python
    def test_a_reading_arrives(casemate_client):
        console = casemate_client(role="console")
        console.subscribe("devices/+/temp", qos=1)
        casemate_client("t7", role="sensor").publish("devices/t7/temp", "21.5", qos=1)
        assert console.messages.take(timeout_s=5).text == "21.5"
    ```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from casemate.testing.authority import Files, ThrowAwayCA
    from casemate.testing.broker import ThrowAwayBroker
    from casemate.testing.relay import Relay

__all__ = ["Files", "Relay", "ThrowAwayBroker", "ThrowAwayCA"]

_ROOMS = {
    "Files": "casemate.testing.authority",
    "Relay": "casemate.testing.relay",
    "ThrowAwayBroker": "casemate.testing.broker",
    "ThrowAwayCA": "casemate.testing.authority",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - classes of several rooms.
    # pytest loads this package in every run; the broker only where a test asks for it.
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
