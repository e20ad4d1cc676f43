"""What a listener says in casemate.toml is what its door does; over real sockets."""

from __future__ import annotations

import hashlib
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from casemate import config, identity, native
from casemate.broker import Broker
from casemate.cli.posture import describe
from casemate.errors import BrokerError
from casemate.home import Home
from casemate.identity import Accounts
from casemate.passwords import PasswordCost

CHEAP = PasswordCost(time=1, memory_kib=64)
REASON = "an old device cannot do better"
WELCOME, REFUSED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    Home.init(folder)
    return folder


def serving(home: Path, *tables: str, **options: Any) -> Broker:  # noqa: ANN401 - as for Broker.
    """Describes a broker whose casemate.toml has these listeners."""
    (home / config.FILE_NAME).write_text("".join(f"[[listeners]]\n{one}\n" for one in tables))
    return Broker(home, password_cost=CHEAP, **options)


def port(broker: Broker, name: str) -> int:
    return next(one.port for one in broker.addresses if one.name == name)


def trusting(home: Path, **options: Any) -> ssl.SSLContext:  # noqa: ANN401 - attributes of ssl's.
    context = ssl.create_default_context(cafile=home / "identities/operator/ca.crt")
    for name, value in options.items():
        setattr(context, name, value)
    return context


def greeted(home: Path, at: int, context: ssl.SSLContext | None = None) -> bytes:
    """Connects without a password; gives the answer, or nothing where the door stays shut."""
    with socket.create_connection(("127.0.0.1", at), timeout=20) as plain:
        if context is None:
            return _said(plain)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as peer:
            return _said(peer)


def is_shut(home: Path, at: int, context: ssl.SSLContext) -> bool:
    """Tells whether TLS refuses, which 1.3 does when the client believes to be through."""
    try:
        return greeted(home, at, context) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def _said(peer: socket.socket) -> bytes:
    peer.sendall(native.encode_connect(4, "probe"))
    return peer.recv(4)


def test_a_unix_socket_has_its_mode_is_shown_and_is_gone_at_the_end(home: Path) -> None:
    file = home / "mqtt.sock"
    with serving(home, 'kind = "unix"\nsocket = "mqtt.sock"\nanonymous_role = "sensor"') as broker:
        assert stat.S_ISSOCK(file.stat().st_mode)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        (one,) = broker.addresses
        assert describe(one) == f"{file}  unix socket, password"
        assert broker.status().weakenings == ("unix: anonymous as sensor (on this machine)",)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(str(file))
            assert _said(peer) == WELCOME
    assert not file.exists()


def test_a_socket_for_others_has_the_mode_that_was_written(home: Path) -> None:
    table = 'kind = "unix"\nsocket = "mqtt.sock"\nmode = "0660"\n'
    with serving(home, table + f'insecure_socket_mode = "{REASON}"'):
        assert stat.S_IMODE((home / "mqtt.sock").stat().st_mode) == 0o660


def test_what_is_no_socket_is_kept_and_the_start_refused(home: Path) -> None:
    (home / "mqtt.sock").write_text("somebody's work")
    with pytest.raises(BrokerError, match=r"mqtt\.sock") as caught:
        serving(home, 'kind = "unix"\nsocket = "mqtt.sock"').start()
    assert caught.value.hint
    assert (home / "mqtt.sock").read_text() == "somebody's work"


def test_a_socket_in_a_folder_that_is_missing_is_refused_with_a_hint(home: Path) -> None:
    with pytest.raises(BrokerError, match=r"mqtt\.sock") as caught:
        serving(home, 'kind = "unix"\nsocket = "nowhere/mqtt.sock"').start()
    assert "folder" in caught.value.hint


def test_tls_1_2_is_spoken_only_where_a_reason_is_written(home: Path) -> None:
    tables = (
        'kind = "tls"\nname = "new"\nport = 0',
        f'kind = "tls"\nname = "old"\nport = 0\ninsecure_tls12 = "{REASON}"',
    )
    with serving(home, *tables) as broker:
        assert broker.status().weakenings == (f"old: TLS 1.2 beside TLS 1.3 ({REASON})",)
        for name, version in (("new", "TLSv1_3"), ("old", "TLSv1_3"), ("old", "TLSv1_2")):
            only = trusting(home, minimum_version=ssl.TLSVersion[version])
            only.maximum_version = ssl.TLSVersion[version]
            assert greeted(home, port(broker, name), only) == REFUSED
        only = trusting(home, minimum_version=ssl.TLSVersion.TLSv1_2)
        only.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            greeted(home, port(broker, "new"), only)


def test_a_listener_with_authorities_of_its_own_takes_their_clients_and_no_others(
    home: Path,
) -> None:
    authority = trustme.CA()
    foreign = authority.issue_cert("device@foreign.example")
    authority.cert_pem.write_to_path(home / "foreign.crt")
    pem = foreign.cert_chain_pems[0].bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    fingerprint = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    with Accounts(home / identity.FILE_NAME, cost=CHEAP) as accounts:
        accounts.add("foreigner", "device", ["sensor"])
        until = int(certificate.not_valid_after_utc.timestamp())
        accounts.add_certificate("foreigner", fingerprint, until)
    tables = (
        'kind = "tls"\nname = "own"\nport = 0\nclient_certificates = "required"',
        'kind = "wss"\nname = "web"\nport = 0',
        'kind = "tls"\nname = "theirs"\nport = 0\nclient_certificates = "required"\n'
        'client_ca = "foreign.crt"',
    )
    theirs, ours = trusting(home), trusting(home)
    foreign.configure_cert(theirs)
    operator = home / "identities/operator"
    ours.load_cert_chain(operator / "client.crt", operator / "client.key")
    with serving(home, *tables) as broker:
        assert greeted(home, port(broker, "theirs"), theirs) == WELCOME
        assert greeted(home, port(broker, "own"), ours) == WELCOME
        for name, context in (("theirs", ours), ("own", theirs), ("web", theirs)):
            assert is_shut(home, port(broker, name), context)


def test_a_file_of_authorities_that_is_missing_or_empty_opens_no_door(home: Path) -> None:
    """Mosquitto #2130: an authority that could not be read left clients unverified."""
    table = 'kind = "tls"\nport = 0\nclient_ca = "ca.crt"'
    with pytest.raises(BrokerError, match=r"ca\.crt"):
        serving(home, table).start()
    for content in ("", "no certificate", "# only a comment\n"):
        (home / "ca.crt").write_text(content)
        with pytest.raises(BrokerError):
            serving(home, table).start()


def test_a_load_balancer_names_the_address_and_nobody_else_does(home: Path) -> None:
    seen: list[native.Event] = []
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 1883\r\n"
    plain = 'kind = "tcp"\nport = 0\n'
    tables = (
        plain + 'name = "balanced"\nproxy_from = ["127.0.0.1"]',
        plain + 'name = "other"\nproxy_from = ["10.0.0.5"]',
    )
    with serving(home, *tables, raw_events=seen.append) as broker:
        for name, opening, answer in (
            ("balanced", header, REFUSED),
            ("balanced", b"", b""),
            ("other", header, b""),
            ("other", b"", REFUSED),
        ):
            with socket.create_connection(("127.0.0.1", port(broker, name)), timeout=20) as peer:
                peer.sendall(opening + native.encode_connect(4, "probe"))
                assert _received(peer) == answer, (name, opening)
    found = {(one.listener, one.address) for one in seen if one.kind == "authentication-refused"}
    assert ("balanced", "192.0.2.7:4711") in found
    assert all("127.0.0.1" in (at or "") for name, at in found if name == "other")
    assert "proxy-refused" in {one.kind for one in seen}


def test_a_listener_holds_as_many_connections_as_it_may(home: Path) -> None:
    table = 'kind = "tcp"\nport = 0\nanonymous_role = "sensor"\nmax_connections = 2'
    with serving(home, table) as broker:
        held = []
        for number in range(2):
            peer = socket.create_connection(("127.0.0.1", port(broker, "tcp")), timeout=20)
            held.append(peer)
            peer.sendall(native.encode_connect(4, f"probe-{number}"))
            assert _received(peer) == WELCOME
        with socket.create_connection(("127.0.0.1", port(broker, "tcp")), timeout=20) as peer:
            peer.sendall(native.encode_connect(4, "one-too-many"))
            assert _received(peer) == b""
        for peer in held:
            peer.sendall(native.encode_pingreq())
            assert peer.recv(2) == b"\xd0\x00"
            peer.close()


def _received(peer: socket.socket) -> bytes:
    """Gives the answer, or nothing where the peer has closed in whatever way."""
    try:
        return peer.recv(4)
    except ConnectionError:
        return b""
