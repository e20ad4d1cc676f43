"""paho-mqtt, driven by lines of JSON."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import paho.mqtt.client as paho

from tests.interop.lines import Answer, Peer, Refused, Step, serve
from tests.interop.peers.paho import properties

PATIENCE_S = 15.0
LOST = -1
VERSIONS = {"3.1": paho.MQTTv31, "3.1.1": paho.MQTTv311, "5.0": paho.MQTTv5}


class Paho(Peer):
    """Is one client with its network thread."""

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        way = step["way"]
        self.connected: queue.Queue[tuple[bool, int]] = queue.Queue()
        self.subscribed: queue.Queue[list[int]] = queue.Queue()
        self.published: queue.Queue[tuple[int, int]] = queue.Queue()
        self.fifth = step["version"] == "5.0"
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=step["client_id"],
            protocol=VERSIONS[step["version"]],
            transport="websockets" if way["name"] in ("ws", "wss") else "tcp",
            reconnect_on_failure=step.get("reconnect", False),
            **({} if self.fifth else {"clean_session": step["clean"]}),
        )
        if way.get("path"):
            self.client.ws_set_options(path=way["path"])
        if way.get("ca_file"):
            self.client.tls_set(way["ca_file"], way.get("cert_file"), way.get("key_file"))
        if way.get("username"):
            self.client.username_pw_set(way["username"], way["password"])
        if will := step.get("will"):
            payload = bytes.fromhex(will["payload"])
            self.client.will_set(will["topic"], payload, will["qos"], will["retain"])
        self.client.on_message = lambda _c, _d, found: self.news(properties.message(found))
        self.client.on_connect = lambda _c, _d, flags, reason, _p: self.connected.put(
            (flags.session_present, reason.value)
        )
        # Where the connection ends before there is a CONNACK, nothing else is ever called.
        self.client.on_disconnect = lambda *_: self.connected.put((False, LOST))
        self.client.on_subscribe = lambda _c, _d, _mid, codes, _p: self.subscribed.put(
            [code.value for code in codes]
        )
        self.client.on_publish = lambda _c, _d, mid, reason, _p: self.published.put(
            (mid, reason.value)
        )

    async def open(self) -> Answer:
        return await asyncio.to_thread(self._open)

    async def publish(self, step: Step) -> Answer:
        return await asyncio.to_thread(self._publish, step)

    async def close(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    async def drop(self) -> None:
        await asyncio.to_thread(self.client.loop_stop)

    def _open(self) -> Answer:
        way = self.step["way"]
        extra: dict[str, Any] = {}
        if self.fifth:
            sent = properties.of_connect(self.step)
            extra = {"clean_start": self.step["clean"], "properties": sent}
        self.client.connect(way["host"], way["port"], keepalive=30, **extra)
        self.client.loop_start()
        present, reason = self.connected.get(timeout=PATIENCE_S)
        if reason == LOST:
            raise ConnectionError("the connection has ended without a CONNACK")
        if reason:
            self.client.loop_stop()
            raise Refused(reason)
        granted: list[int] = []
        if wanted := properties.filters(self.step):
            with_it = properties.of_subscribe(self.step["subscriptions"]) if self.fifth else None
            self.client.subscribe(wanted, properties=with_it)
            granted = self.subscribed.get(timeout=PATIENCE_S)
        return {"present": present, "granted": granted}

    def _publish(self, step: Step) -> Answer:
        payload = bytes.fromhex(step["payload"])
        with_it = properties.of_publish(step) if self.fifth else None
        info = self.client.publish(
            step["topic"], payload, step["qos"], step["retain"], properties=with_it
        )
        # Without a connection it keeps the message for the next one, and says so by an error.
        if info.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN):
            return {"fault": paho.error_string(info.rc)}
        while True:
            number, reason = self.published.get(timeout=PATIENCE_S)
            if number == info.mid:
                return {"reason": reason if reason >= 0x80 else None}


if __name__ == "__main__":
    serve(Paho)
