"""Our pub and sub beside mosquitto's: the same options, and the same bytes come out.

What a line prints was stored before, so that both programs print the same message.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.interop.conftest import RunningLab, need
from tests.unit.python.commands import casemate
from tests.unit.python.test_cli_options import known, refused

PATIENCE_S = 15
PACKAGE = "mosquitto-clients"
PAYLOAD = b'{"a":1.5,"b":[1,true,null,"x \xc3\xa9"]}'
TOPIC = "public/form"
PROPERTIES = {
    "content-type": ["text/plain"],
    "response-topic": ["r/t"],
    "correlation-data": ["abc"],
    "payload-format-indicator": ["1"],
    "user-property": ["k", "v 2"],
}
FORMS = [
    "%t %p", "%q%r%l", "%x|%X", "[%C][%R][%F][%D][%P][%S][%A][%E]", "%%|@@|%t",
    "[%12.3t][%-12t][%.2t][%20C][%-20C][%20.4R]", "[%06l][%-6l][%6l][%4F][%04F]",
    "\\\\|\\t|\\r|\\a|\\e|\\v|\\0|\\n", "%J", "@Y-@m-@dT@H", "plain",
]  # fmt: skip


def reach(lab: RunningLab) -> list[str]:
    way = lab.transport("tls")
    assert way.ca_file
    assert way.username
    assert way.password
    proof = ["-u", way.username, "-P", way.password, "--cafile", way.ca_file]
    return ["-h", "localhost", "-p", str(way.port), "-V", "5", *proof]


@pytest.fixture(scope="module")
def stored(lab: RunningLab) -> list[str]:
    """Stores a message with every property; gives how the broker is reached."""
    program = need("mosquitto_pub", PACKAGE)
    words = [
        word for name, values in PROPERTIES.items() for word in ("-D", "publish", name, *values)
    ]
    done = subprocess.run(
        [program, *reach(lab), "-t", TOPIC, "-s", "-r", "-q", "1", *words],
        input=PAYLOAD,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return reach(lab)


def theirs(*words: str) -> tuple[int, bytes]:
    done = subprocess.run(
        [need("mosquitto_sub", PACKAGE), *words],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout


def ours(*words: str) -> tuple[int, bytes]:
    done = casemate("sub", *words)
    return done.returncode, done.stdout.encode()


@pytest.mark.parametrize("form", FORMS)
def test_a_format_prints_what_mosquitto_prints(form: str, stored: list[str]) -> None:
    words = [*stored, "-t", TOPIC, "-C", "1", "-W", "10", "-q", "1", "-F", form]
    code, expected = theirs(*words)
    assert (code, bool(expected)) == (0, True)
    ended, printed = ours(*words)
    assert (ended, without_moment(printed)) == (0, without_moment(expected))


def without_moment(line: bytes) -> bytes:
    return re.sub(rb'"tst":"[^"]*"|"mid":\d+', b"", line)


@pytest.mark.parametrize("words", [["-v"], ["-N"], [], ["-N", "-v"], ["-V", "311"], ["-V", "31"]])
def test_options_print_what_mosquitto_prints(words: list[str], stored: list[str]) -> None:
    line = [*stored, "-t", TOPIC, "-C", "1", "-W", "10", *words]
    assert ours(*line) == theirs(*line)


@pytest.mark.parametrize(
    "words", [["-C", "1", "-R"], ["-E"], ["-t", "$SYS/nothing"], ["-C", "1", "-T", "public/#"]]
)
def test_the_exit_code_is_that_of_mosquitto(words: list[str], stored: list[str]) -> None:
    line = [*stored, "-t", TOPIC, "-W", "1", *words]
    assert ours(*line)[0] == theirs(*line)[0]


@pytest.mark.parametrize("name", ["pub", "sub", "rr"])
def test_each_option_of_the_installed_mosquitto_is_known(name: str) -> None:
    program = need(f"mosquitto_{name}", PACKAGE)
    said = subprocess.run(
        [program, "--help"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    ).stdout
    options = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z0-9-]*", said))
    assert len(options) > 30
    assert options - {*known(name), *refused(name)} == set()


def test_a_message_of_ours_is_read_by_mosquitto_with_its_properties(stored: list[str]) -> None:
    words = [word for key, values in PROPERTIES.items() for word in ("-D", "publish", key, *values)]
    done = casemate("pub", *stored, "-t", "public/ours", "-m", "x", "-r", "-q", "2", *words)
    assert done.returncode == 0, done.stderr
    form = "%t|%p|%C|%R|%F|%D|%P"
    code, printed = theirs(*stored, "-t", "public/ours", "-C", "1", "-W", "10", "-F", form)
    assert (code, printed) == (0, b"public/ours|x|text/plain|r/t|1|abc|k:v 2\n")
