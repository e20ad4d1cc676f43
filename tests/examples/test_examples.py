"""Each example does what it says, against a real broker, and refuses what it must.

What an example leaves to a person (a URL, Ctrl-C, a sensor) is given here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn

from casemate.client import Client, Message
from casemate.errors import DeadlinePassed, Refused
from casemate.testing import ThrowAwayBroker

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


async def take(one: Client, count: int) -> list[Message]:
    async with asyncio.timeout(10):
        return [await anext(one.messages) for _ in range(count)]


def test_each_example_is_tried_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES:
        assert f'example("{path.stem}")' in text


def test_examples_keep_to_the_types() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, EXAMPLES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert said.returncode == 0, said.stdout


# Request and response


async def test_request_response_adds(casemate_broker: ThrowAwayBroker) -> None:
    module = example("request_response")
    async with (
        casemate_broker.client("service") as service,
        casemate_broker.client("caller") as caller,
    ):
        ready = asyncio.Event()
        serving = asyncio.create_task(module.serve(service, ready))
        await ready.wait()
        assert await module.ask(caller, [1, 2, 3.5]) == {"sum": 6.5}
        assert "error" in await module.ask(caller, ["x"])
        assert "error" in json.loads((await caller.request(module.TOPIC, b"\xff")).payload)
        serving.cancel()


def test_request_response_runs_as_a_program(casemate_broker: ThrowAwayBroker) -> None:
    casemate_broker.set_policy('[roles.operator]\nallow = [{ both = "#", retain = true }]\n')
    secret = casemate_broker.add_user("ada", "operator")
    said = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "request_response.py"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "python"),
            "MQTT_URL": f"mqtts://ada:{secret}@localhost:{casemate_broker.listening().port}",
            "MQTT_CA": str(casemate_broker.ca_file),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "{'sum': 6.5}\n", "")


# SQLite


async def test_bridge_to_sqlite_misses_nothing_while_it_is_away(
    casemate_broker: ThrowAwayBroker, tmp_path: Path
) -> None:
    module = example("bridge_to_sqlite")
    file = tmp_path / "readings.sqlite"
    hostile = b"'); DROP TABLE readings; --"
    async with casemate_broker.client("t7", role="sensor") as sensor:
        for batch in ((b"21.5", b"22.0"), (b"22.5", hostile)):
            async with casemate_broker.client("bridge", role="console", **module.SESSION) as one:
                running = asyncio.create_task(module.bridge(one, file, 2))
                if batch[0] == b"21.5":
                    async with asyncio.timeout(10):
                        while not one._exchange.session.subscriptions:  # noqa: ASYNC110
                            await asyncio.sleep(0.01)
                    for payload in batch:
                        await sensor.publish("devices/t7/temp", payload, qos=1)
                async with asyncio.timeout(10):
                    await running
            if batch[0] == b"21.5":
                for payload in (b"22.5", hostile):
                    await sensor.publish("devices/t7/temp", payload, qos=1)
    database = sqlite3.connect(file)
    rows = database.execute("SELECT device, quantity, payload FROM readings").fetchall()
    database.close()
    payloads = (b"21.5", b"22.0", b"22.5", hostile)
    assert rows == [("t7", "temp", payload) for payload in payloads]


# Home Assistant


async def test_home_assistant_finds_the_device_and_hears_of_its_loss(
    casemate_broker: ThrowAwayBroker,
) -> None:
    module = example("home_assistant")
    go_on: asyncio.Queue[float | None] = asyncio.Queue()

    async def readings() -> AsyncIterator[float]:
        while (reading := await go_on.get()) is not None:
            yield reading

    async with casemate_broker.client("assistant") as assistant:
        await assistant.subscribe("homeassistant/+/+/+/config", "devices/#", qos=1)
        device = casemate_broker.client("thermostat", will=module.will())
        await device.connect()
        running = asyncio.create_task(module.run(device, readings()))
        await go_on.put(21.52)
        description, online, state = await take(assistant, 3)
        said = json.loads(description.payload)
        assert description.topic == module.DISCOVERY
        assert (online.topic, online.text) == (said["availability_topic"], "online")
        assert (state.topic, state.text) == (said["state_topic"], "21.5")
        await assistant.publish(module.BIRTH, "offline", qos=1)
        await assistant.publish(module.BIRTH, "online", qos=1)
        assert [one.topic for one in await take(assistant, 2)] == [module.DISCOVERY, online.topic]
        await go_on.put(None)
        async with asyncio.timeout(10):
            await running
        await device.close(with_will=True)
        assert (await take(assistant, 1))[0].text == "offline"
    # Home Assistant may start later, and must find the same.
    async with casemate_broker.client("later") as later:
        await later.subscribe("homeassistant/#", module.AVAILABILITY, qos=1)
        found = {one.topic: one for one in await take(later, 2)}
        assert found[module.AVAILABILITY].text == "offline"
        assert all(one.retain for one in found.values())


# Sparkplug B


def test_sparkplug_writes_the_bytes_of_its_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are what Google's library writes for the schema of Eclipse Tahu."""
    module = example("sparkplug")
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000 * 1_000_000)
    metrics = {"bdSeq": 3, "on": True, "load": 1.5, "name": "ä", "below": -1}
    assert module.encode(metrics, 300).hex() == SPARKPLUG_BYTES
    assert module.encode({}, None).hex() == "0880d095ffbc31"


SPARKPLUG_BYTES = (
    "0880d095ffbc3112120a0562645365711880d095ffbc3120045803120f0a026f6e1880d095ffbc31200b7001"
    "12180a046c6f61641880d095ffbc31200a69000000000000f83f12130a046e616d651880d095ffbc31200c7a"
    "02c3a4121b0a0562656c6f771880d095ffbc31200458ffffffffffffffffff0118ac02"
)


def rebirth(name: bytes, value: int) -> bytes:
    metric = b"\x0a" + bytes([len(name)]) + name + b"\x20\x0b\x70" + bytes([value])
    return b"\x08\x01\x12" + bytes([len(metric)]) + metric


def test_sparkplug_knows_a_rebirth_and_refuses_what_is_cut_short() -> None:
    module = example("sparkplug")
    wanted = rebirth(b"Node Control/Rebirth", 1)
    assert module.asks_for_rebirth(wanted)
    assert not module.asks_for_rebirth(rebirth(b"Node Control/Rebirth", 0))
    assert not module.asks_for_rebirth(rebirth(b"Node Control/Reboot", 1))
    assert not module.asks_for_rebirth(b"")
    for end in range(3, len(wanted)):
        with pytest.raises(ValueError, match="cut short"):
            module.asks_for_rebirth(wanted[:end])
    for wrong in (b"\xff" * 20, b"\x13", b"\x12\xff\xff\xff\xff\x7f"):
        with pytest.raises(ValueError, match="cut short"):
            module.asks_for_rebirth(wrong)


async def test_sparkplug_is_born_reports_is_born_again_and_dies(
    casemate_broker: ThrowAwayBroker,
) -> None:
    module = example("sparkplug")
    go_on: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def readings() -> AsyncIterator[dict[str, Any]]:
        while (reading := await go_on.get()) is not None:
            yield reading

    def decoded(message: Message) -> tuple[str, list[bytes], int | None]:
        fields = list(module._fields(message.payload))
        names = [dict(module._fields(metric))[1] for field, metric in fields if field == 2]
        return message.topic.split("/")[2], names, dict(fields).get(3)

    async with casemate_broker.client("host") as host:
        await host.subscribe("spBv1.0/plant/#", qos=1)
        node = module.Node(257)
        one = casemate_broker.client("node", will=node.will())
        await one.connect()
        running = asyncio.create_task(node.run(one, readings()))
        await go_on.put({"load": 0.5, "running": True})
        await go_on.put({"load": 0.6})
        all_names = [b"bdSeq", b"Node Control/Rebirth", b"load", b"running"]
        birth, data = await take(host, 2)
        assert decoded(birth) == ("NBIRTH", all_names, 0)
        assert decoded(data) == ("NDATA", [b"load"], 1)
        await host.publish(module.topic("NCMD"), b"\xff", qos=1)
        await host.publish(module.topic("NCMD"), rebirth(b"Node Control/Rebirth", 1), qos=1)
        _, _, again = await take(host, 3)
        assert decoded(again) == ("NBIRTH", all_names, 0)
        await go_on.put(None)
        async with asyncio.timeout(10):
            await running
        await one.close(with_will=True)
        (death,) = await take(host, 1)
        assert decoded(death) == ("NDEATH", [b"bdSeq"], None)
        metric = next(value for field, value in module._fields(death.payload) if field == 2)
        assert dict(module._fields(metric))[11] == 257 % 256


# FastAPI


@pytest.fixture
def web() -> Iterator[tuple[ModuleType, str]]:
    """Serves the application as uvicorn does, in a thread."""
    module = example("embedded_in_fastapi")
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(module.app, log_level="warning"))
    started = threading.Event()
    startup = server.startup

    async def tell(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    assert started.wait(20)
    yield module, f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    listening.close()
    assert not thread.is_alive()


def fetch(url: str, body: bytes | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, data=body)  # noqa: S310 - loopback.
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback.
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_embedded_in_fastapi_joins_devices_and_people(web: tuple[ModuleType, str]) -> None:
    module, url = web
    broker = module.app.state.broker
    assert fetch(f"{url}/devices/t7/temp")[0] == 404
    with broker.client("t7", role="sensor").blocking() as sensor:
        sensor.subscribe("devices/t7/commands/#", qos=1)
        sensor.publish("devices/t7/temp", "21.5", qos=1)
        # The reading is on its way to the application; a command is answered behind it.
        for _ in range(100):
            code, answer = fetch(f"{url}/devices/t7/temp")
            if code == 200:
                break
        assert answer == {"device": "t7", "temp": "21.5"}
        assert fetch(f"{url}/devices/t7/commands/reboot", b"now") == (202, {"sent": True})
        message = sensor.messages.take(10)
        assert (message.topic, message.text) == ("devices/t7/commands/reboot", "now")
        for wrong in ("t7%2Fcommands", "%23", "%2B", "a" * 65):
            assert fetch(f"{url}/devices/{wrong}/commands/x", b"")[0] in (404, 422)
        with pytest.raises(DeadlinePassed):
            sensor.messages.take(0.05)


# Gatekeeper


async def test_gatekeeper_lets_an_account_in_once_and_has_the_impatient_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = example("gatekeeper")
    broker = ThrowAwayBroker()
    gatekeeper = module.guarded(broker)
    codes = []
    async with broker, broker.client("t7") as first:
        reporting = asyncio.create_task(module.report(broker))
        for number in range(module.REFUSALS_MAX + 1):
            with pytest.raises(Refused) as caught:
                await broker.client("t7", client_id=f"c{number}", reconnect=False).connect()
            codes.append(caught.value.reason_code)
        await first.publish("still/in", qos=1)
        gatekeeper.waits_until.clear()
        await first.close()
        async with asyncio.timeout(10), broker.client("t8"):
            while gatekeeper.inside["t7"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with broker.client("t7"):
            pass
    await reporting
    assert codes == [module.QUOTA_EXCEEDED] * 5 + [module.CONNECTION_RATE_EXCEEDED]
    said = capsys.readouterr().out
    assert "connect of 't7' refused: 't7 is in already'" in said
    assert "'t7 has to wait'" in said


def test_gatekeeper_runs_as_a_program_and_ends_by_ctrl_c() -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-W", "error", ROOT / "examples" / "gatekeeper.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said, complained) == (0, "stopped\n", "")
