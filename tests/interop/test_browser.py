"""MQTT.js in a page of a headless Chromium, over WSS: trusted, untrusted, and of another origin."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from casemate.broker import Broker
from casemate.client import Client
from casemate.config import Listener
from tests.interop import homes
from tests.interop.clients import KINDS, PEERS, Kind
from tests.interop.conftest import need

PATIENCE_S = 40.0
MQTTJS = next(kind for kind in KINDS if kind.folder == "mqttjs")
FILES = {
    "/": (PEERS / "chromium" / "page.html", "text/html"),
    "/mqtt.min.js": (MQTTJS.path / "node_modules/mqtt/dist/mqtt.min.js", "text/javascript"),
}


class PageServer(ThreadingHTTPServer):
    """Serves the page on loopback, and takes what the page has to say."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listens."""
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        super().__init__(("127.0.0.1", 0), _Handler)

    def origin(self, host: str = "127.0.0.1") -> str:
        """Gives the origin of the page as the browser says it."""
        return f"http://{host}:{self.server_address[1]}"

    def next(self, key: str) -> Any:  # noqa: ANN401 - whatever the page has said.
        """Waits until the page has said something by this key; errors end the wait."""
        while True:
            line = self.told.get(timeout=PATIENCE_S)
            if key in line:
                return line[key]
            assert "error" not in line, line


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        file, kind = FILES.get(self.path, (None, ""))
        if file is None:
            self.send_error(404)
            return
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing: what matters is what the page says."""


@pytest.fixture
def pages() -> Iterator[PageServer]:
    server = PageServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return homes.made(tmp_path / "home")


@pytest.fixture
def broker(home: Path, pages: PageServer) -> Iterator[Broker]:
    """Takes pages of one origin only."""
    with homes.served(
        home,
        Listener(kind="wss", port=0, origins=(pages.origin(),), client_certificates="none"),
        Listener(kind="tls", port=0),
    ) as one:
        yield one


@dataclass
class Browser:
    """Is a Chromium with a profile of its own."""

    folder: Path

    def trust(self, authority: Path) -> None:
        """Makes it trust one more authority, as people do: in the store of its user."""
        store = self.folder / ".pki" / "nssdb"
        store.mkdir(parents=True)
        certutil = [need("certutil", "libnss3-tools"), "-d", f"sql:{store}"]
        subprocess.run([*certutil, "-N", "--empty-password"], check=True)
        add = ["-A", "-n", "casemate", "-t", "C,,", "-i", str(authority)]
        subprocess.run([*certutil, *add], check=True)

    def show(self, address: str) -> subprocess.Popen[bytes]:
        """Opens a page."""
        return subprocess.Popen(
            [
                need("chromium", "chromium"),
                "--headless=new",
                # It stays on this machine, and tests run as root where it has no sandbox.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
                *("--no-sandbox", "--no-first-run", "--no-proxy-server", "--disable-gpu"),
                *("--disable-extensions", "--disable-background-networking"),
                *("--disable-component-update", "--disable-dev-shm-usage"),
                f"--user-data-dir={self.folder / 'profile'}",
                address,
            ],
            env={**os.environ, "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@pytest.fixture
def show(tmp_path: Path, ready_kind: Callable[[Kind], None]) -> Iterator[Callable[..., None]]:
    """Opens a page in a new browser, which ends with the test."""
    ready_kind(MQTTJS)
    started: list[subprocess.Popen[bytes]] = []

    def open_page(address: str, *authorities: Path) -> None:
        browser = Browser(tmp_path / secrets.token_hex(4))
        browser.folder.mkdir()
        for authority in authorities:
            browser.trust(authority)
        started.append(browser.show(address))

    yield open_page
    for one in started:
        # With its children, which are all in the session that it has begun.
        os.killpg(one.pid, signal.SIGKILL)
        one.wait(10)


def address(origin: str, broker: Broker, topic: str) -> str:
    """Gives the page's address, with all that it needs to connect."""
    port = next(one.port for one in broker.addresses if one.kind == "wss")
    asked = {
        "url": f"wss://127.0.0.1:{port}/mqtt",
        "topic": topic,
        "username": homes.USER,
        "password": homes.SECRET,
    }
    return f"{origin}/#{quote(json.dumps(asked))}"


async def test_a_page_subscribes_publishes_and_shows_what_came(
    home: Path, broker: Broker, pages: PageServer, show: Callable[..., None]
) -> None:
    topic = f"public/{secrets.token_hex(4)}"
    port = next(one.port for one in broker.addresses if one.kind == "tls")
    async with Client(
        "127.0.0.1",
        port,
        ca_file=homes.authority(home),
        username=homes.USER,
        password=homes.SECRET,
    ) as other:
        await other.subscribe(topic, qos=1)
        show(address(pages.origin(), broker, topic), homes.authority(home))
        assert await asyncio.to_thread(pages.next, "published") == topic
        async with asyncio.timeout(PATIENCE_S):
            assert (await anext(other.messages)).text == "from the page"
        await other.publish(topic, "to the page", qos=1)
        while (shown := await asyncio.to_thread(pages.next, "shown")) == ["from the page"]:
            continue
        assert shown == ["from the page", "to the page"]


def test_a_page_of_another_origin_is_refused(
    home: Path, broker: Broker, pages: PageServer, show: Callable[..., None]
) -> None:
    topic = f"public/{secrets.token_hex(4)}"
    # The same page from the same server; but its origin has another name.
    show(address(pages.origin("localhost"), broker, topic), homes.authority(home))
    line = pages.told.get(timeout=PATIENCE_S)
    assert set(line) <= {"error", "closed"}, line
    counters = broker.counters()
    assert counters["upgrades_refused"] > 0
    assert counters["connections_total"] == counters["upgrades"] == 0


def test_a_browser_that_does_not_know_the_authority_stays_away(
    broker: Broker, pages: PageServer, show: Callable[..., None]
) -> None:
    show(address(pages.origin(), broker, f"public/{secrets.token_hex(4)}"))
    line = pages.told.get(timeout=PATIENCE_S)
    assert set(line) <= {"error", "closed"}, line
