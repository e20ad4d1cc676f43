"""mosquitto_pub and mosquitto_sub, driven by lines of JSON: each subscriber, each message a run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from typing import Any

from tests.interop.lines import Answer, Peer, Refused, Step, serve

PATIENCE_S = 15.0
VERSIONS = {"3.1": "mqttv31", "3.1.1": "mqttv311", "5.0": "mqttv5"}
LINE_BYTES_MAX = 64 * 1024 * 1024

_FIELDS = ("qos", "retain", "topic", "payload")
_FORMAT = b"MSG\t%q\t%r\t%t\t%x"
_FIELDS_5 = ("response_topic", "correlation", "content_type", "expiry_s", "identifier", "user")
_FORMAT_5 = b"\t%R\t%D\t%C\t%E\t%S\t%P"

_CONNECT = {
    "receive_max": "receive-maximum",
    "packet_bytes_max": "maximum-packet-size",
    "alias_max": "topic-alias-maximum",
}
_PUBLISH = {
    "response_topic": "response-topic",
    "content_type": "content-type",
    "expiry_s": "message-expiry-interval",
}

# mosquitto_sub wants to know its filters whenever it starts, also where the broker kept them.
_kept: dict[str, list[dict[str, Any]]] = {}


class Mosquitto(Peer):
    """Is one subscriber, and whoever publishes in its name."""

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.fifth = step["version"] == "5.0"
        self.process: asyncio.subprocess.Process | None = None
        self.reading: asyncio.Task[None] | None = None

    async def open(self) -> Answer:
        step = self.step
        asked = step.get("subscriptions") or []
        wanted = asked or _kept.get(step["client_id"], [])
        if not wanted:
            # Whoever only publishes connects with each message.
            return {"present": None, "granted": []}
        if not step["clean"]:
            _kept[step["client_id"]] = wanted
        # Into a pipe its output would come at the end; by lines it comes in time.
        self.process = await asyncio.create_subprocess_exec(
            *("stdbuf", "-oL", "mosquitto_sub", *self._way(), "-d"),
            *self._subscriber(wanted),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES_MAX,
        )
        granted = await self._granted()
        self.reading = asyncio.create_task(self._read())
        if min(granted) >= 0x80:
            # It ends by itself, and a signal while it does so can block it for ever.
            async with asyncio.timeout(PATIENCE_S):
                await self.process.wait()
        return {"present": None, "granted": granted if asked else []}

    async def publish(self, step: Step) -> Answer:
        arguments: list[str | bytes] = ["-t", step["topic"], "-q", str(step["qos"])]
        arguments += ["-r"] if step["retain"] else []
        arguments += ["-s"] if step["payload"] else ["-n"]
        for key, name in _PUBLISH.items():
            if step.get(key) is not None:
                arguments += ["-D", "publish", name, str(step[key])]
        for key, value in step.get("user") or []:
            arguments += ["-D", "publish", "user-property", key, value]
        if step.get("correlation"):
            arguments += ["-D", "publish", "correlation-data", bytes.fromhex(step["correlation"])]
        process = await asyncio.create_subprocess_exec(
            *("mosquitto_pub", *self._way(), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate(bytes.fromhex(step["payload"]))
        text = said.decode(errors="replace").strip()
        if refused := re.search(r"Connection error: (.*)", text):
            raise Refused(refused[1])
        if process.returncode and "failed" not in text:
            return {"fault": f"mosquitto_pub ended with {process.returncode}: {text}"}
        return {"reason": text or None}

    async def close(self) -> None:
        await self._end(signal.SIGINT)

    async def drop(self) -> None:
        await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, how)
        async with asyncio.timeout(PATIENCE_S):
            await self.process.wait()
        if self.reading is not None:
            await self.reading

    def _way(self) -> list[str]:
        way = self.step["way"]
        found = ["-h", way["host"], "-p", str(way["port"]), "-V", VERSIONS[self.step["version"]]]
        for key, option in (
            ("ca_file", "--cafile"),
            ("cert_file", "--cert"),
            ("key_file", "--key"),
            ("username", "-u"),
            ("password", "-P"),
        ):
            if way.get(key):
                found += [option, way[key]]
        return found

    def _subscriber(self, wanted: list[dict[str, Any]]) -> list[str | bytes]:
        step = self.step
        found: list[str | bytes] = ["-i", step["client_id"]]
        found += ["-F", _FORMAT + _FORMAT_5 if self.fifth else _FORMAT]
        found += [] if step["clean"] else ["-c"]
        for one in wanted:
            found += ["-t", one["filter"], "-q", str(one["qos"])]
        if self.fifth:
            found += ["-x", str(step.get("keep_s") or 0)]
            for key, name in _CONNECT.items():
                if step.get(key) is not None:
                    found += ["-D", "connect", name, str(step[key])]
            if identifier := wanted[0].get("identifier"):
                found += ["-D", "subscribe", "subscription-identifier", str(identifier)]
        if will := step.get("will"):
            found += ["--will-topic", will["topic"], "--will-qos", str(will["qos"])]
            found += ["--will-payload", bytes.fromhex(will["payload"])]
            found += ["--will-retain"] if will["retain"] else []
        return found

    async def _granted(self) -> list[int]:
        said = []
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines():
                said.append(line.decode(errors="replace").strip())
                if line.startswith(b"MSG\t"):
                    self._tell(line)
                elif found := re.match(rb"Subscribed \(mid: \d+\): ([\d, ]+)", line):
                    return [int(code) for code in found[1].split(b",")]
                elif found := re.match(rb"Connection error: (.*)", line):
                    raise Refused(found[1].decode().strip())
        raise RuntimeError(f"mosquitto_sub has ended: {said}")

    async def _read(self) -> None:
        async for line in self._lines():
            if line.startswith(b"MSG\t"):
                self._tell(line)

    async def _lines(self) -> Any:  # noqa: ANN401 - an asynchronous iterator of lines.
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            yield line

    def _tell(self, line: bytes) -> None:
        values = line.rstrip(b"\n").split(b"\t")[1:]
        correlation = b""
        if self.fifth:
            correlation = values[len(_FIELDS) + _FIELDS_5.index("correlation")]
        names = _FIELDS + _FIELDS_5 if self.fifth else _FIELDS
        said = dict(zip(names, (value.decode(errors="replace") for value in values), strict=True))
        message: dict[str, Any] = {
            "topic": said["topic"],
            "payload": said["payload"],
            "qos": int(said["qos"]),
            "retain": said["retain"] == "1",
        }
        if self.fifth:
            message |= {
                "user": [pair.split(":", 1) for pair in said["user"].split()],
                "response_topic": said["response_topic"],
                "correlation": correlation.hex(),
                "content_type": said["content_type"],
                "expiry_s": int(said["expiry_s"]) if said["expiry_s"] else None,
                "identifiers": [int(said["identifier"])] if said["identifier"] else [],
            }
        self.news(message)


if __name__ == "__main__":
    serve(Mosquitto)
