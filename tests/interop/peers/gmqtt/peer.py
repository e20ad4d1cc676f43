"""gmqtt, driven by lines of JSON."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import gmqtt
from gmqtt.mqtt.constants import UNLIMITED_RECONNECTS, MQTTv50, MQTTv311
from gmqtt.mqtt.handler import MQTTConnectError
from gmqtt.storage import PersistentStorage

from tests.interop.lines import Answer, Peer, Refused, Step, serve

PATIENCE_S = 15.0
VERSIONS = {"3.1.1": MQTTv311, "5.0": MQTTv50}

_CONNECT = {
    "keep_s": "session_expiry_interval",
    "receive_max": "receive_maximum",
    "packet_bytes_max": "maximum_packet_size",
    "alias_max": "topic_alias_maximum",
}
_PUBLISH = {
    "response_topic": "response_topic",
    "content_type": "content_type",
    "expiry_s": "message_expiry_interval",
    "alias": "topic_alias",
}


class Gmqtt(Peer):
    """Is one client."""

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        way = step["way"]
        will = step.get("will")
        self.present: bool | None = None
        self.lost = asyncio.Event()
        self.granted: asyncio.Queue[tuple[int, ...]] = asyncio.Queue()
        # What is unacknowledged stands here: an empty one means that all has been acknowledged.
        self.unacknowledged = PersistentStorage()
        self.client = gmqtt.Client(
            step["client_id"],
            clean_session=step["clean"],
            persistent_storage=self.unacknowledged,
            will_message=will
            and gmqtt.Message(
                will["topic"], bytes.fromhex(will["payload"]), will["qos"], will["retain"]
            ),
            **_given(_CONNECT, step),
        )
        retries = UNLIMITED_RECONNECTS if step.get("reconnect") else 0
        self.client.set_config({"reconnect_retries": retries, "reconnect_delay": 0})
        if way.get("username"):
            self.client.set_auth_credentials(way["username"], way["password"])
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_disconnect = lambda *_: self.lost.set()
        self.client.on_subscribe = lambda _client, _mid, codes, _p: self.granted.put_nowait(codes)

    async def open(self) -> Answer:
        way = self.step["way"]
        tls: ssl.SSLContext | bool = False
        if way.get("ca_file"):
            tls = ssl.create_default_context(cafile=way["ca_file"])
            if way.get("cert_file"):
                tls.load_cert_chain(way["cert_file"], way["key_file"])
        # Where the connection ends before there is a CONNACK, `connect` would wait for ever.
        connecting = asyncio.create_task(
            self.client.connect(
                way["host"],
                way["port"],
                ssl=tls,
                keepalive=30,
                version=VERSIONS[self.step["version"]],
            )
        )
        losing = asyncio.create_task(self.lost.wait())
        await asyncio.wait({connecting, losing}, return_when=asyncio.FIRST_COMPLETED)
        losing.cancel()
        if not connecting.done():
            connecting.cancel()
            raise ConnectionError("the connection has ended without a CONNACK")
        try:
            await connecting
        except MQTTConnectError as error:
            raise Refused(error._code) from error
        granted: list[int] = []
        if wanted := self.step.get("subscriptions"):
            extra = {}
            if identifier := wanted[0].get("identifier"):
                extra["subscription_identifier"] = identifier
            self.client.subscribe(
                [gmqtt.Subscription(one["filter"], qos=one["qos"]) for one in wanted], **extra
            )
            async with asyncio.timeout(PATIENCE_S):
                granted = list(await self.granted.get())
        return {"present": self.present, "granted": granted}

    async def publish(self, step: Step) -> Answer:
        extra: dict[str, Any] = _given(_PUBLISH, step)
        if step.get("user"):
            extra["user_property"] = [tuple(pair) for pair in step["user"]]
        if step.get("correlation"):
            extra["correlation_data"] = bytes.fromhex(step["correlation"])
        payload = bytes.fromhex(step["payload"])
        self.client.publish(step["topic"], payload, step["qos"], step["retain"], **extra)
        async with asyncio.timeout(PATIENCE_S):
            await self.unacknowledged.wait_empty()
        return {}

    async def close(self) -> None:
        await self.client.disconnect()

    async def drop(self) -> None:
        self.client.stop_reconnect()

    def _on_connect(self, _client: object, flags: int, _code: int, _properties: object) -> None:
        self.present = bool(flags & 1)

    def _on_message(
        self, _client: object, topic: str, payload: bytes, qos: int, found: dict[str, Any]
    ) -> int:
        def one(name: str) -> Any:  # noqa: ANN401 - a property's.
            return (found.get(name) or [None])[0]

        self.news(
            {
                "topic": topic,
                "payload": payload.hex(),
                "qos": qos,
                "retain": bool(found["retain"]),
                "user": [list(pair) for pair in found.get("user_property", [])],
                "response_topic": one("response_topic"),
                "correlation": (one("correlation_data") or b"").hex(),
                "content_type": one("content_type"),
                "expiry_s": one("message_expiry_interval"),
                "identifiers": found.get("subscription_identifier", []),
            }
        )
        return 0


def _given(names: dict[str, str], step: Step) -> dict[str, Any]:
    return {name: step[key] for key, name in names.items() if step.get(key) is not None}


if __name__ == "__main__":
    serve(Gmqtt)
