"""Writes every reading into SQLite, and misses none while it is not running.

The broker keeps the session for a day, so that what is published meanwhile is delivered when the
bridge is back. A message is acknowledged as it is taken; at most that one is lost in a crash.

Run it against any broker: MQTT_URL=mqtts://broker.example MQTT_CA=ca.crt python bridge_to_sqlite.py
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from casemate import Client, Message
from casemate.client import TopicPattern

READINGS = TopicPattern("devices/{device}/{quantity}")

SESSION = {"client_id": "sqlite-bridge", "clean_start": False, "session_expiry_s": 86_400}

_TABLE = """
CREATE TABLE IF NOT EXISTS readings (
    at_unix_s REAL NOT NULL, device TEXT NOT NULL, quantity TEXT NOT NULL, payload BLOB NOT NULL
)
"""


def client() -> Client:
    """Describes the client, with the session that outlives it."""
    options: dict[str, Any] = {"ca_file": os.environ.get("MQTT_CA"), **SESSION}
    return Client.from_url(os.environ["MQTT_URL"], **options)


def store(database: sqlite3.Connection, message: Message) -> None:
    """Writes one reading; what a peer has sent is a value, never a part of the statement."""
    names = READINGS.read(message.topic)
    with database:
        database.execute(
            "INSERT INTO readings VALUES (?, ?, ?, ?)",
            (time.time(), names["device"], names["quantity"], message.payload),
        )


async def bridge(one: Client, file: Path, count: int | None = None) -> None:
    """Carries messages into a database.

    Args:
        one: Connected.
        file: The database; made if there is none.
        count: Messages after which it ends; None carries on.
    """
    database = sqlite3.connect(file, check_same_thread=False)
    try:
        database.execute(_TABLE)
        await one.subscribe(READINGS, qos=1)
        async for message in one.messages:
            # In a thread: a slow disk must not keep the client from its pings.
            await asyncio.to_thread(store, database, message)
            count = None if count is None else count - 1
            if count == 0:
                return
    finally:
        database.close()


async def main() -> None:
    """Runs until Ctrl-C."""
    async with client() as one:
        await bridge(one, Path("readings.sqlite"))


if __name__ == "__main__":
    asyncio.run(main())
