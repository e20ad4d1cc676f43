"""URLs and addresses of a broker: what each says, what is refused, and that no secret is told.

A URL is read without connecting; each wrong one is refused with a reason, never guessed at.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from casemate.client import Client, trust
from casemate.client.url import read_url
from casemate.errors import Untrusted


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mqtts://broker.example", {"host": "broker.example"}),
        ("mqtts://broker.example:8884/", {"host": "broker.example", "port": 8884}),
        ("MQTTS://broker.example", {"host": "broker.example"}),
        ("mqtt://[::1]:1883", {"host": "::1", "port": 1883, "tls": False}),
        ("mqtt://localhost", {"host": "localhost", "tls": False}),
        ("wss://b.example", {"host": "b.example", "websocket_path": "/mqtt"}),
        ("wss://b.example/", {"host": "b.example", "websocket_path": "/"}),
        ("wss://b.example/a?x=1&y=2", {"host": "b.example", "websocket_path": "/a?x=1&y=2"}),
        (
            "ws://localhost:8083/mqtt",
            {"host": "localhost", "port": 8083, "tls": False, "websocket_path": "/mqtt"},
        ),
        ("unix:///run/mqtt%20a.sock", {"unix_socket": "/run/mqtt a.sock"}),
        ("unix:/run/mqtt%20a.sock", {"unix_socket": "/run/mqtt a.sock"}),
        (
            "mqtts://me:p%40ss%2F%3A@broker.example",
            {"host": "broker.example", "username": "me", "password": "p@ss/:"},
        ),
        ("mqtts://me@broker.example", {"host": "broker.example", "username": "me"}),
    ],
)
def test_a_url_says_what_the_arguments_would(url: str, said: dict[str, Any]) -> None:
    assert read_url(url) == said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("broker.example", "begins with"),
        ("tcp://broker.example", "did you mean mqtt://"),
        ("ssl://broker.example", "did you mean mqtts://"),
        ("https://broker.example", "did you mean wss://"),
        ("mqtts:broker.example", "begins with"),
        ("mqtts://", "names no host"),
        ("mqtts://:8883", "names no host"),
        ("mqtts://h:99999", "port"),
        ("mqtts://h:0", "port"),
        ("mqtts://h:x", "port"),
        ("mqtts://[::1", "bracket"),
        ("mqtts://h/topic", "no path"),
        ("mqtts://h?x=1", "no path"),
        ("mqtts://h#x", "%23"),
        ("mqtts://h\r\nx", "control character"),
        ("mqtts://h x", "blank"),
        ("mqtts://%ff@h", "UTF-8"),
        ("unix://run/x", "three slashes"),
        ("unix:run/x", "begins with"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "mqtts://me:hunter22@h/path",
        "mqtts://me:hunter22@",
        "mqtts://me:hunter22@h:x",
        "mqtts://me:hunter22@h ",
        "tcp://me:hunter22@h",
        "mqtts://me:hunter22#@h",
        "mqtts://me:hunter22%ff@h",
    ],
)
def test_a_refused_url_never_tells_its_password(url: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - see below.
        Client.from_url(url)
    assert "hunter22" not in str(refused.value)
    assert "hunter22" not in repr(refused.value.__cause__)


def test_a_client_is_made_from_a_url_and_shows_no_secret() -> None:
    client = Client.from_url("mqtts://me:hunter22@broker.example", client_id="c")
    assert (client.address.host, client.address.port) == ("broker.example", 8883)
    assert client.address.tls is not None
    assert "hunter22" not in repr(client) + repr(client.blocking())
    assert "broker.example:8883" in repr(client)


def test_what_url_and_argument_both_say_is_refused() -> None:
    with pytest.raises(ValueError, match="both say port"):
        Client.from_url("mqtts://h:8883", port=1)
    with pytest.raises(ValueError, match="both say tls"):
        Client.from_url("mqtt://localhost", tls=True)


def test_plaintext_urls_stay_on_this_machine() -> None:
    for url in ("mqtt://192.0.2.1", "ws://192.0.2.1/mqtt"):
        with pytest.raises(Untrusted, match="plaintext"):
            Client.from_url(url)
        Client.from_url(url, insecure_plaintext=True)


@pytest.mark.parametrize(
    ("options", "port"),
    [
        ({}, 8883),
        ({"tls": False}, 1883),
        ({"websocket_path": "/mqtt"}, 443),
        ({"websocket_path": "/mqtt", "tls": False}, 80),
        ({"port": 1}, 1),
    ],
)
def test_the_usual_port_of_the_transport_is_taken(options: dict[str, Any], port: int) -> None:
    assert Client("localhost", **options).address.port == port


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "host"),
        ({"host": "mqtts://h"}, "from_url"),
        ({"host": "a..b"}, "can be no name"),
        ({"host": "x" * 64 + ".example"}, "can be no name"),
        ({"host": "\udcff"}, "can be no name"),
        ({"host": "[::1]"}, "IPv6 unbracketed"),
        ({"host": "localhost:8883"}, "no port"),
        ({"host": "localhost", "local_address": "localhost"}, "an IP address of this machine"),
        ({"host": "localhost", "client_id": "x" * 65_536}, "client_id is longer"),
        ({"host": "localhost", "client_id": "\udcff"}, "client_id cannot be written as UTF-8"),
        ({"host": "localhost", "username": "a\0b"}, "username holds a null character"),
        ({"host": "localhost", "password": b"x" * 65_536}, "the password is longer"),
        ({"host": "localhost", "password": "x", "version": 4}, "needs a user name"),
        ({"host": "localhost", "user": [("k", "\udcff")]}, "a user property cannot be"),
        ({"host": "localhost", "port": 0}, "1–65,535"),
        ({"host": "localhost", "port": 65_536}, "1–65,535"),
        ({"unix_socket": "/run/x", "port": 1}, "no port"),
        ({"unix_socket": "/run/x", "local_address": "127.0.0.1"}, "no local address"),
        ({"host": "localhost", "websocket_headers": [("a", "b")]}, "without websocket_path"),
        ({"host": "localhost", "websocket_path": "mqtt"}, "begins with /"),
        ({"host": "localhost", "websocket_path": "/m\r\nHost: x"}, "begins with /"),
        ({"host": "localhost", "websocket_path": "/m q"}, "begins with /"),
        ({"host": "localhost", "websocket_path": "/m#q"}, "begins with /"),
        ({"host": "localhost", "reconnect_s_max": 0}, "reconnect_s_max"),
        ({"host": "localhost", "session_expiry_s": 2**32}, "session_expiry_s"),
    ],
)
def test_what_cannot_be_reached_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Client(**options)


@pytest.mark.parametrize(
    "header",
    [
        ("X-Token", "hunter22\r\nHost: other"),
        ("X-Token\r\nX", "hunter22"),
        ("", "hunter22"),
        ("Host", "hunter22"),
        ("Upgrade", "hunter22"),
        ("Sec-WebSocket-Key", "hunter22"),
        ("X-Token", "hunter22\x00"),
        ("X-Token", "hunter22é"),
    ],
)
def test_a_header_that_would_break_the_handshake_is_refused(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="header") as refused:
        Client("localhost", websocket_path="/mqtt", websocket_headers=[header])
    assert "hunter22" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost.", "127.0.0.1", "::1", "fe80::1%lo", "b_1.example", "bücher.example"],
)
def test_a_host_that_can_be_one_is_taken(host: str) -> None:
    assert Client(host).address.host == host


def test_a_unix_socket_is_plaintext_unless_tls_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "mqtt.sock"
    assert Client(unix_socket=path).address.tls is None
    assert str(Client(unix_socket=path).address) == str(path)
    assert Client("broker.example", unix_socket=path, tls=True).address.tls is not None
    assert Client("broker.example", unix_socket=path, tls=trust()).address.tls is not None


def test_alpn_names_what_is_spoken_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[list[str]] = []
    monkeypatch.setattr(
        ssl.SSLContext, "set_alpn_protocols", lambda _, protocols: named.append(protocols)
    )
    Client("localhost")
    Client("localhost", websocket_path="/mqtt")
    assert named == [["mqtt"], ["http/1.1"]]
