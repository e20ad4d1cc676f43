"""aiomqtt, driven by lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib

import aiomqtt

from tests.interop.lines import Answer, Peer, Refused, Step, serve
from tests.interop.peers.paho import properties

# aiomqtt does not notice a connection that ends before there is a CONNACK: it waits this long.
PATIENCE_S = 6.0
VERSIONS = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5.0": aiomqtt.ProtocolVersion.V5}


class Aiomqtt(Peer):
    """Is one client and the task that reads its messages."""

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        way = step["way"]
        self.fifth = step["version"] == "5.0"
        tls = None
        if way.get("ca_file"):
            tls = aiomqtt.TLSParameters(way["ca_file"], way.get("cert_file"), way.get("key_file"))
        will = step.get("will")
        version = {"clean_start": step["clean"], "properties": properties.of_connect(step)}
        self.client = aiomqtt.Client(
            way["host"],
            way["port"],
            username=way.get("username"),
            password=way.get("password"),
            identifier=step["client_id"],
            protocol=VERSIONS[step["version"]],
            transport="websockets" if way["name"] in ("ws", "wss") else "tcp",
            websocket_path=way.get("path"),
            keepalive=30,
            timeout=PATIENCE_S,
            tls_params=tls,
            will=will
            and aiomqtt.Will(
                will["topic"], bytes.fromhex(will["payload"]), will["qos"], will["retain"]
            ),
            **(version if self.fifth else {"clean_session": step["clean"]}),
        )
        self.reading: asyncio.Task[None] | None = None

    async def open(self) -> Answer:
        try:
            await self.client.__aenter__()
        except aiomqtt.MqttCodeError as error:
            raise Refused(getattr(error.rc, "value", str(error))) from error
        self.reading = asyncio.create_task(self._read())
        granted: list[int] = []
        if wanted := properties.filters(self.step):
            with_it = properties.of_subscribe(self.step["subscriptions"]) if self.fifth else None
            codes = await self.client.subscribe(wanted, properties=with_it)
            granted = [getattr(code, "value", code) for code in codes]
        # aiomqtt keeps to itself whether the broker had a session.
        return {"present": None, "granted": granted}

    async def publish(self, step: Step) -> Answer:
        await self.client.publish(
            step["topic"],
            bytes.fromhex(step["payload"]),
            step["qos"],
            step["retain"],
            properties.of_publish(step) if self.fifth else None,
        )
        return {}

    async def close(self) -> None:
        await self._end()

    async def drop(self) -> None:
        with contextlib.suppress(aiomqtt.MqttError):
            await self._end()

    async def _end(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.gather(self.reading, return_exceptions=True)
        await self.client.__aexit__(None, None, None)

    async def _read(self) -> None:
        async for found in self.client.messages:
            self.news(properties.message(found))


if __name__ == "__main__":
    serve(Aiomqtt)
