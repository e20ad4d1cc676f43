"""Asks and answers over MQTT 5.0: a service that adds, and a program that wants a sum.

Run it against any broker: MQTT_URL=mqtts://broker.example MQTT_CA=ca.crt python request_response.py
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from casemate import Client

TOPIC = "services/sum"


def client(name: str) -> Client:
    """Describes a client; each one needs a name of its own."""
    options: dict[str, Any] = {"ca_file": os.environ.get("MQTT_CA"), "client_id": name}
    return Client.from_url(os.environ["MQTT_URL"], **options)


async def serve(service: Client, ready: asyncio.Event) -> None:
    """Answers each request where it asks for it."""
    async with service.subscription(TOPIC, qos=1) as requests:
        ready.set()
        async for request in requests:
            try:
                answer: dict[str, Any] = {"sum": sum(json.loads(request.payload))}
            except (ValueError, TypeError):
                answer = {"error": "a JSON list of numbers was expected"}
            await service.reply(request, json.dumps(answer))


async def ask(caller: Client, numbers: list[float]) -> dict[str, Any]:
    """Asks for a sum; raises DeadlinePassed where nobody answers in time."""
    answer = await caller.request(TOPIC, json.dumps(numbers), timeout_s=5)
    found: dict[str, Any] = json.loads(answer.payload)
    return found


async def main() -> None:
    """Runs both sides in one program."""
    async with client("service") as service, client("caller") as caller:
        ready = asyncio.Event()
        serving = asyncio.create_task(serve(service, ready))
        await ready.wait()
        print(await ask(caller, [1, 2, 3.5]))
        serving.cancel()


if __name__ == "__main__":
    asyncio.run(main())
