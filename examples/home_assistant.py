"""Shows a thermometer in Home Assistant by itself, and as unavailable when it is lost.

Home Assistant reads stored descriptions below `homeassistant/`; the will marks the device offline.

Run it against any broker: MQTT_URL=mqtts://broker.example MQTT_CA=ca.crt python home_assistant.py
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from casemate import Client, Will

DEVICE = "thermostat-7"
STATE = f"devices/{DEVICE}/temp"
AVAILABILITY = f"devices/{DEVICE}/status"
DISCOVERY = f"homeassistant/sensor/{DEVICE}/temperature/config"

# Home Assistant says here that it has started, and forgets what it had not stored.
BIRTH = "homeassistant/status"

SENSOR = Path("/sys/class/thermal/thermal_zone0/temp")

DESCRIPTION = {
    "name": "Temperature",
    "unique_id": f"{DEVICE}-temperature",
    "state_topic": STATE,
    "availability_topic": AVAILABILITY,
    "device_class": "temperature",
    "state_class": "measurement",
    "unit_of_measurement": "°C",
    "device": {"identifiers": [DEVICE], "name": "Thermostat 7"},
}


def will() -> Will:
    """Gives what the broker says when the device is lost."""
    return Will(AVAILABILITY, "offline", qos=1, retain=True)


def client() -> Client:
    """Describes the device's client."""
    options: dict[str, Any] = {"ca_file": os.environ.get("MQTT_CA"), "client_id": DEVICE}
    return Client.from_url(os.environ["MQTT_URL"], will=will(), **options)


async def announce(one: Client) -> None:
    """Says what there is, and that it is there; both are stored."""
    await one.publish(DISCOVERY, json.dumps(DESCRIPTION), qos=1, retain=True)
    await one.publish(AVAILABILITY, "online", qos=1, retain=True)


async def run(one: Client, readings: AsyncIterator[float]) -> None:
    """Announces, reports, and announces again when Home Assistant has restarted."""

    async def again() -> None:
        async for message in births:
            if message.payload == b"online":
                await announce(one)

    async with one.subscription(BIRTH, qos=1) as births, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(again())
        await announce(one)
        async for reading in readings:
            await one.publish(STATE, f"{reading:.1f}", qos=1)
        watching.cancel()


async def measured() -> AsyncIterator[float]:
    """Measures this machine's processor every ten seconds, in degrees Celsius."""
    while True:
        yield int(await asyncio.to_thread(SENSOR.read_text)) / 1_000
        await asyncio.sleep(10)


async def main() -> None:
    """Runs until Ctrl-C; the goodbye asks for the will, so that the device shows as offline."""
    one = client()
    await one.connect()
    try:
        await run(one, measured())
    finally:
        await one.close(with_will=True)


if __name__ == "__main__":
    asyncio.run(main())
