"""The engine's listener: options that contradict each other are refused before a door opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from casemate import native


def server(*listeners: native.Listener) -> native.Server:
    return native.Server.start(list(listeners), [], native.Policy(1, []), limits={})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"websocket_origins": ["https://app.example"]}, "websocket_path"),
        ({"proxy_from": ["10.0.0.1/8"]}, "beyond"),
        ({"proxy_from": ["10.0.0.0/8", "localhost"]}, "localhost"),
        ({"unix_path": "run/mqtt.sock"}, "alone"),
        ({"client_certificates": "perhaps"}, "client_certificates"),
        ({"tls12": True}, "TLS"),
        ({"client_ca_pem": b"x"}, "TLS"),
    ],
)
def test_contradictions_are_refused_at_once(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        native.Listener("main", "127.0.0.1", 0, **options)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"websocket_path": "mqtt"}, "websocket"),
        ({"websocket_path": "/mqtt", "websocket_origins": ["*"]}, "websocket"),
        ({"max_connections": 0}, "option"),
    ],
)
def test_what_nobody_could_meet_is_refused_at_the_start(options: dict[str, Any], kind: str) -> None:
    listener = native.Listener("main", "127.0.0.1", 0, **options)
    with pytest.raises(native.StartRefused) as refused:
        server(listener)
    assert refused.value.args[1] == kind


def test_a_unix_socket_is_refused_where_something_else_is(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(native.StartRefused) as refused:
        server(native.Listener("main", "", 0, unix_path=str(path)))
    assert refused.value.args[1:] == ("socket-file", "main")
    assert path.read_text() == "data"


def test_every_kind_of_door_opens_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "mqtt.sock"
    running = server(
        native.Listener("web", "127.0.0.1", 0, websocket_path="/mqtt", max_connections=5),
        native.Listener("behind", "::1", 0, proxy_from=["10.0.0.0/8", "2001:db8::/32"]),
        native.Listener("unix", "", 0, unix_path=str(path), unix_mode=0o660),
    )
    try:
        web, behind, unix = running.addresses()
        assert web[:2] == ("web", "127.0.0.1")
        assert behind[:2] == ("behind", "::1")
        assert web[2] > 0
        assert behind[2] > 0
        assert unix == ("unix", str(path), 0)
        assert path.stat().st_mode & 0o777 == 0o660
    finally:
        running.stop(1.0)
    assert not path.exists()
