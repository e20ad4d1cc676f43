"""A web application with its own broker: devices publish over MQTT, people look over HTTP.

The broker starts and stops with the application. Without CASEMATE_HOME it is a throw-away one.

Run it: uvicorn embedded_in_fastapi:app
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request
from fastapi import Path as InPath

from casemate import Broker, Client
from casemate.client import TopicPattern

READINGS = TopicPattern("devices/{device}/{quantity}")
COMMANDS = TopicPattern("devices/{device}/commands/{command}")

# What may stand in a topic's level; a name from a URL must not reach another device's topics.
Name = Annotated[str, InPath(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

READINGS_MAX = 10_000
"""Readings that are remembered; devices must not fill the memory by inventing names."""


async def collect(client: Client, latest: dict[str, str]) -> None:
    """Remembers the latest reading of each device."""
    async with client.subscription(READINGS, qos=1) as messages:
        async for message in messages:
            if message.topic in latest or len(latest) < READINGS_MAX:
                latest[message.topic] = message.payload.decode(errors="replace")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Runs the broker and the collector beside the application."""
    async with (
        Broker(os.environ.get("CASEMATE_HOME")) as broker,
        broker.client("operator") as client,
        asyncio.TaskGroup() as tasks,
    ):
        app.state.broker, app.state.client, app.state.latest = broker, client, {}
        collecting = tasks.create_task(collect(client, app.state.latest))
        yield
        collecting.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/devices/{device}/{quantity}")
async def reading(request: Request, device: Name, quantity: Name) -> dict[str, str]:
    """Gives the latest reading."""
    found = request.app.state.latest.get(READINGS.topic(device=device, quantity=quantity))
    if found is None:
        raise HTTPException(404, "nothing was heard of it")
    return {"device": device, quantity: found}


@app.post("/devices/{device}/commands/{command}", status_code=202)
async def command(request: Request, device: Name, command: Name) -> dict[str, bool]:
    """Sends a command; returns when the broker has it."""
    body = await request.body()
    await request.app.state.client.publish(
        COMMANDS.topic(device=device, command=command), body, qos=1
    )
    return {"sent": True}
