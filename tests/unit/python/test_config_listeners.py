"""The kinds of listeners: what each takes, what it refuses, and that no other door opens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import config
from casemate.config import Configuration, Listener, weakenings
from casemate.document import Document
from casemate.errors import ConfigurationError

REASON = "the network is a cable"


def read(text: str) -> Configuration:
    document = Document.parse(text, Path("casemate.toml"), ConfigurationError)
    return config.parse(document)


def refused(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return caught.value


def table(kind: str, *lines: str) -> str:
    """Writes one listener; `lines` begin on line 3, or on line 4 where a port is needed."""
    needed = 'socket = "mqtt.sock"\n' if kind == "unix" else "port = 1\n"
    return f'[[listeners]]\nkind = "{kind}"\n{needed}' + "".join(f"{one}\n" for one in lines)


def only(text: str) -> Listener:
    (listener,) = read(text).listeners
    return listener


def test_each_kind_has_safe_defaults() -> None:
    for kind in ("tls", "wss"):
        listener = only(table(kind))
        assert listener.client_certificates == "optional"
        assert listener.is_encrypted
    for kind in ("tcp", "ws", "unix"):
        listener = only(table(kind))
        assert listener.client_certificates == "none"
        assert not listener.is_encrypted
    for kind in ("tls", "tcp", "wss", "ws", "unix"):
        listener = only(table(kind))
        assert listener.is_loopback
        assert listener.anonymous_role is None
        assert listener.proxy_from == ()
        assert listener.mode_bits == 0o600
        assert listener.path == ("/mqtt" if kind in ("ws", "wss") else None)
        assert weakenings(Configuration(listeners=(listener,))) == ()


ENCRYPTED_ONLY = [
    'certificate = "a"\nkey = "b"', 'client_certificates = "optional"',
    'client_certificates = "required"', 'client_ca = "ca.crt"', f'insecure_tls12 = "{REASON}"',
]  # fmt: skip
ADDRESSED_ONLY = ['host = "127.0.0.1"', "port = 2", 'proxy_from = ["10.0.0.1"]']
MISFITS = [
    *((kind, line) for kind in ("tcp", "ws", "unix") for line in ENCRYPTED_ONLY),
    *((kind, line) for kind in ("tcp", "tls", "unix") for line in ('path = "/"',)),
    *((kind, 'origins = ["https://a.example"]') for kind in ("tcp", "tls", "unix")),
    *((kind, f'insecure_plaintext = "{REASON}"') for kind in ("tls", "wss", "unix")),
    *(("unix", line) for line in ADDRESSED_ONLY),
    *(
        (kind, line)
        for kind in ("tls", "tcp", "wss", "ws")
        for line in ('socket = "a"', 'mode = "0600"', f'insecure_socket_mode = "{REASON}"')
    ),
]


@pytest.mark.parametrize(("kind", "line"), MISFITS)
def test_an_option_that_a_kind_would_ignore_is_refused(kind: str, line: str) -> None:
    """Mosquitto #996: a required certificate was ignored on one transport."""
    error = refused(table(kind, line))
    assert f"a {kind} listener" in error.message
    assert error.line in (3, 4)
    assert error.hint


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        (table("wsss"), 2, "'wsss'", '"wss"'),
        ('[[listeners]]\nkind = "unix"\n', 1, "socket is missing", "mqtt.sock"),
        ('[[listeners]]\nkind = "wss"\n', 1, "port is missing", "port"),
        (table("ws", 'host = "192.0.2.1"'), 4, "plaintext", 'kind = "wss"'),
        (table("wss", 'paht = "/"'), 4, "'paht'", '"path"'),
        (table("wss", 'path = ""'), 4, "begins with a slash", '"/mqtt"'),
        (table("wss", 'path = "mqtt"'), 4, "begins with a slash", '"/mqtt"'),
        (table("wss", 'path = "/a b"'), 4, "begins with a slash", ""),
        (table("wss", 'path = "/a?b"'), 4, "begins with a slash", ""),
        (table("wss", r'path = "/a\r\nb"'), 4, "begins with a slash", ""),
        (table("wss", f'path = "/{"a" * 256}"'), 4, "begins with a slash", ""),
        (table("wss", 'origins = "https://a.example"'), 4, "list in [brackets]", ""),
        (table("wss", 'origins = ["*"]'), 4, "found '*'", "leave origins out"),
        (table("wss", 'origins = ["a.example"]'), 4, "found 'a.example'", "https://app.example"),
        (table("wss", 'origins = ["https://a.example/"]'), 4, "origin", '"https://a.example"'),
        (table("wss", 'origins = ["https://A.example"]'), 4, "origin", '"https://a.example"'),
        (table("wss", 'origins = ["https://a.example:443"]'), 4, "origin", '"https://a.example"'),
        (table("wss", 'origins = [\n"https://a.example",\n"x"]'), 6, "found 'x'", ""),
        (table("wss", 'origins = ["https://a.example:99999"]'), 4, "origin", ""),
        (table("wss", 'origins = ["null"]'), 4, "found 'null'", ""),
        (table("tls", 'proxy_from = ["10.0.0.5/24"]'), 4, "a network", '"10.0.0.0/24"'),
        (table("tls", 'proxy_from = ["balancer"]'), 4, "found 'balancer'", '"10.0.0.0/24"'),
        (table("tls", "proxy_from = [1]"), 4, "text in quotes, found 1", ""),
        (table("tls", 'proxy_from = ["0.0.0.0/0"]'), 4, "0.0.0.0/0 could", "_from_anywhere"),
        (table("tls", 'proxy_from = ["::/0"]'), 4, "::/0 could claim", "_from_anywhere"),
        (table("tls", 'proxy_from = ["2000::/3"]'), 4, "2000::/3 could", "_from_anywhere"),
        (
            table("tls", 'proxy_from = ["0.0.0.0/1", "128.0.0.0/1"]'),
            4, "0.0.0.0/0 could claim", "_from_anywhere",
        ),
        (
            table("tls", f'insecure_proxy_from_anywhere = "{REASON}"'),
            4, "names no network that is too wide", "remove",
        ),
        (table("unix", 'socket = "a"'), 4, "not TOML", ""),
        (table("unix", 'mode = "0660"'), 4, "other users", "insecure_socket_mode"),
        (table("unix", 'mode = "0602"'), 4, "other users", "insecure_socket_mode"),
        (table("unix", "mode = 600"), 4, "text in quotes, found 600", ""),
        (table("unix", 'mode = "0888"'), 4, "octal digits", '"0600"'),
        (table("unix", 'mode = "4600"'), 4, "octal digits", '"0600"'),
        (table("unix", 'mode = "0400"'), 4, "lets the owner", '"0600"'),
        (table("unix", f'insecure_socket_mode = "{REASON}"'), 4, "only the owner", "remove"),
        (table("unix", 'host = "127.0.0.1"'), 4, "has no address", "remove"),
        (table("tls", "max_connections = 0"), 4, "at least 1", "lowest"),
        (table("tls", 'client_certificates = "none"\nclient_ca = "a"'), 5, "nobody is", "opt"),
        (table("tls", 'insecure_tls12 = "short"'), 4, "written reason", ""),
        (table("tls", "insecure_tls12 = true"), 4, "text in quotes", ""),
        (table("tls", 'name = ""'), 4, "expected a name", "a letter first"),
        (table("tls", r'name = "a\nb"'), 4, "expected a name", "a letter first"),
        (
            table("tls", 'name = "a"') + table("tcp", "host = '::1'", 'name = "a"'),
            9, 'name "a"', "own name",
        ),
        (table("tls", 'name = "ws"') + table("ws", "host = '::1'"), 5, 'name "ws"', "own name"),
        (table("unix") + table("unix"), 6, "two listeners on the socket", "own socket"),
        (table("tls") + table("wss"), 6, "two listeners on 127.0.0.1 port 1", "own port"),
        (table("tls") + '[log]\nformat = "jsno"\n', 5, "'jsno'", '"json"'),
        (table("tls") + '[log]\nlevle = "info"\n', 5, "'levle'", '"level"'),
        (table("tls") + '[log]\nlevel = "warn"\n', 5, "'warn'", '"warning"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_line_and_hint(
    text: str, line: int, words: str, hint: str
) -> None:
    error = refused(text)
    assert error.line == line, str(error)
    assert words in str(error)
    assert hint in error.hint


WEAKENED = [
    (table("ws", 'host = "192.0.2.1"', f'insecure_plaintext = "{REASON}"'), "plaintext"),
    (table("tls", f'insecure_tls12 = "{REASON}"'), "TLS 1.2"),
    (table("unix", 'mode = "660"', f'insecure_socket_mode = "{REASON}"'), "mode 0660"),
    (
        table("tcp", 'proxy_from = ["::/0"]', f'insecure_proxy_from_anywhere = "{REASON}"'),
        "PROXY headers from ::/0",
    ),
    (
        table("wss", 'host = "::"', 'anonymous_role = "guest"', f'insecure_anonymous = "{REASON}"'),
        "anonymous as guest",
    ),
]


@pytest.mark.parametrize(("text", "words"), WEAKENED)
def test_each_weakening_is_taken_with_its_reason_and_listed(text: str, words: str) -> None:
    (found,) = weakenings(read(text))
    assert words in found
    assert REASON in found
    without = "\n".join(one for one in text.splitlines() if not one.startswith("insecure_"))
    if "TLS 1.2" not in words:
        refused(without)
    else:
        assert weakenings(read(without)) == ()


def test_every_insecure_option_is_listed_somewhere() -> None:
    options = {name for name in Listener.model_fields if name.startswith("insecure_")}
    assert options == {name for text, _ in WEAKENED for name in options if name in text}


def test_listeners_are_named_by_kind_and_counted_and_keep_the_names_they_were_given() -> None:
    text = table("tls", 'name = "devices"') + table("wss", "host = '::1'")
    text += '[[listeners]]\nkind = "tls"\nport = 2\n[[listeners]]\nkind = "tls"\nport = 3\n'
    assert [name for name, _ in read(text).named()] == ["devices", "wss", "tls", "tls-2"]


def test_load_places_every_path_in_the_home(tmp_path: Path) -> None:
    (tmp_path / "casemate.toml").write_text(
        table("wss", 'client_ca = "ca.crt"') + table("unix") + table("tcp", 'host = "::1"')
    )
    web, unix, plain = config.load(tmp_path).listeners
    assert (web.certificate, web.key) == (tmp_path / "pki/server.crt", tmp_path / "pki/server.key")
    assert web.client_ca == tmp_path / "ca.crt"
    assert unix.socket == tmp_path / "mqtt.sock"
    assert (plain.certificate, plain.client_ca, plain.socket) == (None, None, None)


def test_a_socket_path_that_the_system_cannot_take_is_refused_with_its_line(
    tmp_path: Path,
) -> None:
    file = tmp_path / "casemate.toml"
    room = 107 - len(str(tmp_path)) - 1
    file.write_text(f'[[listeners]]\nkind = "unix"\nsocket = "{"a" * room}"\n')
    assert config.load(tmp_path)
    file.write_text(f'[[listeners]]\nkind = "unix"\nsocket = "{"a" * (room + 1)}"\n')
    with pytest.raises(ConfigurationError, match="108 bytes") as caught:
        config.load(tmp_path)
    assert caught.value.line == 3


KINDS = st.sampled_from(["tls", "tcp", "wss", "ws", "unix", "quic"])
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "port": st.integers(-1, 5),
    "host": st.sampled_from(["127.0.0.1", "::1", "0.0.0.0", "localhost", "nowhere"]),  # noqa: S104
    "socket": st.sampled_from(["a", "b"]),
    "mode": st.sampled_from(["0600", "0666", "9"]),
    "client_certificates": st.sampled_from(["none", "optional", "required", "maybe"]),
    "certificate": st.just("c"),
    "key": st.just("k"),
    "client_ca": st.just("a"),
    "path": st.sampled_from(["/mqtt", "x"]),
    "origins": st.lists(st.sampled_from(["https://a.example", "*"]), max_size=2),
    "proxy_from": st.lists(st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "x"]), max_size=2),
    "max_connections": st.integers(0, 3),
    "anonymous_role": st.just("guest"),
    "name": st.sampled_from(["one", "tls", "ws-2"]),
    **{
        name: st.sampled_from([REASON, "short"])
        for name in Listener.model_fields
        if name.startswith("insecure_")
    },
}
DECLARED = st.builds(
    lambda kind, options: {"kind": kind, **options},
    KINDS,
    st.fixed_dictionaries({}, optional=OPTIONS),
)
ENOUGH = st.one_of(
    st.builds(
        lambda kind, port: {"kind": kind, "port": port},
        st.sampled_from(["tls", "tcp", "wss", "ws"]),
        st.integers(0, 5),
    ),
    st.builds(lambda path: {"kind": "unix", "socket": path}, st.sampled_from(["a", "b"])),
)


@given(
    st.lists(DECLARED | ENOUGH, max_size=4),
    st.dictionaries(st.sampled_from(["shards", "port", "anonymous_role", "limits"]), st.just(1)),
)
def test_no_door_opens_that_was_not_declared(
    declared: list[dict[str, Any]], others: dict[str, Any]
) -> None:
    """Mosquitto #2283: a TLS option without a listener opened a remote anonymous port."""
    document = Document(
        Path("casemate.toml"), {**others, "listeners": declared}, {}, ConfigurationError
    )
    try:
        configuration = config.parse(document)
    except ConfigurationError:
        return
    assert len(configuration.listeners) == len(declared) > 0
    assert len(dict(configuration.named())) == len(declared)
    for wanted, (_, found) in zip(declared, configuration.named(), strict=True):
        assert found.kind == wanted["kind"]
        assert found.port == wanted.get("port", 0)
        assert found.host in (wanted.get("host"), "127.0.0.1")
        assert (found.socket and str(found.socket)) == wanted.get("socket")
        assert found.anonymous_role == wanted.get("anonymous_role")
        if not found.is_loopback:
            assert found.is_encrypted or wanted["insecure_plaintext"] == REASON
            assert found.anonymous_role is None or wanted["insecure_anonymous"] == REASON
        if found.client_certificates != "none":
            assert found.is_encrypted
        if found.mode_bits & 0o022:
            assert wanted["insecure_socket_mode"] == REASON


@given(st.text(max_size=40))
def test_a_hostile_text_in_any_option_is_shown_in_plain_ascii(value: str) -> None:
    values: dict[str, Any] = {"kind": "wss", "port": 1}
    for option in ("name", "path", "mode", "host", "client_certificates"):
        _shown_plainly({**values, option: value})
    for option in ("origins", "proxy_from"):
        _shown_plainly({**values, option: [value]})


def _shown_plainly(listener: dict[str, Any]) -> None:
    try:
        config.parse(
            Document(Path("casemate.toml"), {"listeners": [listener]}, {}, ConfigurationError)
        )
    except ConfigurationError as error:
        shown = str(error) + error.hint
        assert all(character.isprintable() for character in shown)


def test_the_guide_explains_each_option_and_its_example_is_valid() -> None:
    guide = (Path(__file__).parents[3] / "docs/guides/configuration.md").read_text("utf-8")
    first_cells = " ".join(
        line.split("|")[1] for line in guide.splitlines() if line.startswith("| `")
    )
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(Listener.model_fields)
    example = next(iter(re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)))
    configuration = read(example)
    assert [name for name, _ in configuration.named()] == ["tls", "wss", "unix", "balanced"]
    assert weakenings(configuration) == ()
