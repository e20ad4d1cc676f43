"""mosquitto_pub beside the matrix: another authority, and the line that `up` prints."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import trustme

from tests.interop.conftest import RunningLab, need
from tests.unit.python.commands import casemate, running

PATIENCE_S = 15


def test_a_broker_of_another_authority_is_refused_by_mosquitto_too(lab: RunningLab) -> None:
    way = lab.transport("tls")
    program = need("mosquitto_pub", "mosquitto-clients")
    with trustme.CA().cert_pem.tempfile() as other:
        arguments = ["--cafile", other, "-t", "public/x", "-m", "x"]
        plain = ["-h", way.host, "-p", str(way.port), "-V", "mqttv5"]
        done = subprocess.run(
            [program, *plain, *arguments], check=False, timeout=PATIENCE_S, capture_output=True
        )
    assert done.returncode != 0


def test_the_line_that_up_prints_for_mosquitto_works(tmp_path: Path) -> None:
    need("mosquitto_pub", "mosquitto-clients")
    home = tmp_path / "home"
    with running("up", "--home", home, "--host", "127.0.0.1", "--port", "0") as up:
        line = up.until("mosquitto_pub")
        done = casemate("device", "add", "thermostat-7", "--role", "sensor", "--home", home)
        assert done.returncode == 0, done.stderr
        until = time.monotonic() + PATIENCE_S
        # A new device is known to the running broker within a second.
        while subprocess.run(
            [*shlex.split(line), "-q", "1"], check=False, timeout=PATIENCE_S, capture_output=True
        ).returncode:
            assert time.monotonic() < until
        assert up.stop() == 0
