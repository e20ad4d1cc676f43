"""Steps to the properties of paho-mqtt, and its messages to lines; aiomqtt has the same ones."""

from __future__ import annotations

from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.interop.lines import Step

_CONNECT = {
    "keep_s": "SessionExpiryInterval",
    "receive_max": "ReceiveMaximum",
    "packet_bytes_max": "MaximumPacketSize",
    "alias_max": "TopicAliasMaximum",
}
_PUBLISH = {
    "response_topic": "ResponseTopic",
    "content_type": "ContentType",
    "expiry_s": "MessageExpiryInterval",
    "alias": "TopicAlias",
}


def of_connect(step: Step) -> Properties:
    """Gives what a CONNECT carries."""
    return _filled(PacketTypes.CONNECT, _CONNECT, step)


def of_publish(step: Step) -> Properties:
    """Gives what a PUBLISH carries."""
    found = _filled(PacketTypes.PUBLISH, _PUBLISH, step)
    if step.get("user"):
        found.UserProperty = [tuple(pair) for pair in step["user"]]
    if step.get("correlation"):
        found.CorrelationData = bytes.fromhex(step["correlation"])
    return found


def of_subscribe(subscriptions: list[dict[str, Any]]) -> Properties:
    """Gives what a SUBSCRIBE carries."""
    found = Properties(PacketTypes.SUBSCRIBE)
    if identifier := subscriptions[0].get("identifier"):
        found.SubscriptionIdentifier = identifier
    return found


def filters(step: Step) -> list[tuple[str, Any]]:
    """Gives the filters as `subscribe` wants them."""
    wanted = step.get("subscriptions") or []
    if step["version"] == "5.0":
        return [(one["filter"], SubscribeOptions(one["qos"])) for one in wanted]
    return [(one["filter"], one["qos"]) for one in wanted]


def message(found: Any) -> dict[str, Any]:  # noqa: ANN401 - paho's or aiomqtt's message.
    """Gives the line of a message."""
    line: dict[str, Any] = {
        "topic": str(found.topic),
        "payload": bytes(found.payload).hex(),
        "qos": found.qos,
        "retain": bool(found.retain),
    }
    with_it = found.properties
    if with_it is not None:
        line["user"] = [list(pair) for pair in getattr(with_it, "UserProperty", [])]
        line["response_topic"] = getattr(with_it, "ResponseTopic", None)
        line["correlation"] = getattr(with_it, "CorrelationData", b"").hex()
        line["content_type"] = getattr(with_it, "ContentType", None)
        line["expiry_s"] = getattr(with_it, "MessageExpiryInterval", None)
        line["identifiers"] = getattr(with_it, "SubscriptionIdentifier", [])
    return line


def _filled(kind: int, names: dict[str, str], step: Step) -> Properties:
    found = Properties(kind)
    for key, name in names.items():
        if step.get(key) is not None:
            setattr(found, name, step[key])
    return found
