"""The lab as benchmarks use it: killed and started again, several shards, many clients."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from casemate.client import Client
from casemate.errors import Refused
from tests.interop.conftest import RunningLab

StartLab = Callable[..., RunningLab]


def client(ready: dict[str, Any], user: str, **options: Any) -> Client:  # noqa: ANN401 - Client's.
    return Client(
        ready["host"],
        ready["port"],
        tls=False,
        username=user,
        password=ready["users"][user],
        **options,
    )


def test_a_killed_lab_starts_again_with_the_same_identities(
    start_lab: StartLab, tmp_path: Path
) -> None:
    first = start_lab("--data", str(tmp_path))
    first.kill()
    second = start_lab("--data", str(tmp_path))
    assert {**second.ready, "pid": 0} == {**first.ready, "pid": 0}

    async def look() -> None:
        ready = second.ready
        async with client(ready, "some") as one:
            await one.publish("public/x", qos=1)
        files = {"ca_file": ready["ca_file"]}
        own = {"cert_file": ready["client_cert"], "key_file": ready["client_key"]}
        async with Client(ready["host"], ready["mtls_port"], **files, **own) as two:
            await two.publish("anything/at/all", qos=1)

    asyncio.run(look())
    assert second.stop() == 0


def test_the_mtls_port_lets_nobody_in_without_a_certificate(lab: RunningLab) -> None:
    async def look() -> None:
        ready = lab.ready
        with pytest.raises(Exception, match=r"certificate|closed"):
            await Client(
                ready["host"],
                ready["mtls_port"],
                ca_file=ready["ca_file"],
                username="all",
                password=ready["users"]["all"],
                reconnect=False,
            ).connect()

    asyncio.run(look())


def test_a_limit_that_was_set_is_in_force(start_lab: StartLab) -> None:
    limited = start_lab("--set", "receive_max=10", "--set", "keep_alive_s_max=30")

    async def look() -> None:
        async with client(limited.ready, "all", keep_alive_s=600) as one:
            assert (one.limits.receive_max, one.limits.keep_alive_s) == (10, 30)

    asyncio.run(look())
    assert limited.stop() == 0


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_messages_cross_shards_in_order(start_lab: StartLab, shards: int) -> None:
    many = start_lab("--shards", str(shards))
    count, each = 12, 50

    async def look() -> None:
        topic = f"public/{secrets.token_hex(4)}"
        clients = [client(many.ready, "all", client_id=f"c{number}") for number in range(count)]
        for one in clients:
            await one.connect()
            await one.subscribe(f"{topic}/+", qos=2)

        async def publish(number: int) -> None:
            for step in range(each):
                await clients[number].publish(f"{topic}/{number}", str(step), qos=step % 3)

        async def receive(one: Client) -> None:
            steps: dict[str, list[int]] = {}
            for _ in range(count * each):
                message = await anext(one.messages)
                steps.setdefault(message.topic, []).append(int(message.text))
            assert len(steps) == count
            for found in steps.values():
                # Each QoS is in order by itself; QoS 2 may stand behind what was sent after it.
                for qos in range(3):
                    own = [step for step in found if step % 3 == qos]
                    assert own == sorted(own)
                assert sorted(found) == list(range(each))

        async with asyncio.timeout(50):
            await asyncio.gather(
                *(publish(number) for number in range(count)), *(receive(one) for one in clients)
            )
        for one in clients:
            await one.close()

    asyncio.run(look())
    assert many.stop() == 0


def test_many_clients_log_in_by_password_at_once(lab: RunningLab) -> None:
    async def look() -> None:
        clients = [client(lab.ready, "some") for _ in range(300)]
        async with asyncio.timeout(100):
            await asyncio.gather(*(one.connect() for one in clients))
            await asyncio.gather(*(one.publish("public/x", qos=1) for one in clients))
            await asyncio.gather(*(one.close() for one in clients))

    asyncio.run(look())


def test_a_client_id_of_another_user_is_another_session(lab: RunningLab) -> None:
    """CVE-2026-33215 and its kin: who takes a client id must not get what belongs to another."""

    async def look() -> None:
        name = secrets.token_hex(4)
        topic = f"public/{name}"
        keep = {"client_id": name, "clean_start": False, "session_expiry_s": 300}
        async with client(lab.ready, "all", **keep) as victim:
            await victim.subscribe(topic, qos=1)
            async with client(lab.ready, "some", **keep) as thief:
                assert not thief.session_present
                await thief.publish(topic, "for the victim", qos=1)
                async with asyncio.timeout(10):
                    assert (await anext(victim.messages)).text == "for the victim"
                assert len(thief.inbox) == 0
            # mosquitto#3551: a clean start with a wrong password must not end the session either.
            wrong = Client(
                lab.ready["host"], lab.ready["port"], tls=False, username="all", password="wrong",
                client_id=name, reconnect=False,
            )  # fmt: skip
            with pytest.raises(Refused):
                await wrong.connect()
        async with client(lab.ready, "all", **keep) as again:
            assert again.session_present

    asyncio.run(look())
