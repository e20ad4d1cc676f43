"""The store as a broker is told of it: how durable, where, under which key, and what is refused."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from casemate import Broker, native
from casemate.broker import read_status
from casemate.broker.events import Reading, StoreDamaged, StoreFailing, StoreRecovered
from casemate.broker.keeping import read_key
from casemate.cli.app import execute
from casemate.config import Configuration, Listener, Store
from casemate.document import Document
from casemate.errors import (
    BrokerError,
    CasemateError,
    ConfigurationError,
    StoreError,
    StoreInUse,
)
from casemate.home import Home
from casemate.testing.template import copy_home
from tests.unit.python.commands import casemate, running

TLS = '[[listeners]]\nkind = "tls"\nhost = "127.0.0.1"\nport = 0\n'
KEY, OTHER = "0f" * 32, "1e" * 32
REASON = "its first key, until it is compact"


@pytest.fixture
def home() -> Iterator[Path]:
    made = copy_home()
    configure(made)
    yield made
    shutil.rmtree(made.parent)


def configure(home: Path, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    (home / "casemate.toml").write_text(f"{TLS}[store]\n{text}", encoding="utf-8")


def write_key(home: Path, name: str, text: str = KEY, mode: int = 0o600) -> None:
    (home / name).write_text(text, encoding="utf-8")
    (home / name).chmod(mode)


def keep(broker: Broker, topic: str = "lab/1", payload: str = "kept") -> None:
    with broker.client("operator").blocking() as client:
        client.publish(topic, payload, qos=1, retain=True)


def is_kept(broker: Broker, topic: str = "lab/1") -> str:
    with broker.client("operator").blocking() as client, client.subscription(topic) as messages:
        return next(iter(messages)).text


# How durable


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_what_was_retained_is_there_after_a_restart(home: Path, durability: str) -> None:
    configure(home, f'durability = "{durability}"')
    with Broker(home) as broker:
        keep(broker)
        assert broker.status().store.durability == durability
    with Broker(home) as broker:
        assert is_kept(broker) == "kept"
        assert broker.status().store.commits_read > 0


def test_a_home_is_durable_on_disk_where_nothing_is_said(home: Path) -> None:
    with Broker(home) as broker:
        store = broker.status().store
        assert read_status(home).store.durability == "disk"
    assert (store.durability, store.folder) == ("disk", str(home / "store"))
    assert stat.S_IMODE((home / "store").stat().st_mode) == 0o700
    files = [one for one in (home / "store").iterdir() if one.is_file()]
    assert files
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}


def test_memory_keeps_nothing_and_makes_no_folder(home: Path) -> None:
    configure(home, 'durability = "memory"')
    with Broker(home) as broker:
        keep(broker)
        assert broker.status().store.durability == "memory"
    assert not (home / "store").exists()
    with Broker(home) as broker:
        assert broker.status().store.commits_read == 0


def homeless(**store: object) -> Broker:
    listener = Listener(kind="tcp", port=0)
    described = Store.model_validate(store)
    return Broker(configuration=Configuration(listeners=(listener,), store=described))


def test_a_broker_without_a_home_keeps_nothing_by_default() -> None:
    for broker in (Broker(), homeless(), homeless(durability="memory")):
        with broker:
            assert broker.status().store.durability == "memory"


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_a_broker_without_a_home_needs_a_folder_to_keep_something(
    tmp_path: Path, durability: str
) -> None:
    with pytest.raises(ConfigurationError, match="needs a folder") as caught:
        homeless(durability=durability).start()
    assert "a home" in caught.value.hint
    with homeless(durability=durability, folder=tmp_path / "kept") as broker:
        assert broker.status().store.folder == str(tmp_path / "kept")
    assert list((tmp_path / "kept").glob("*.log"))


def test_a_reload_says_that_the_store_counts_from_the_next_start(home: Path) -> None:
    with Broker(home) as broker:
        configure(home, 'durability = "os"')
        outcome = broker.reload()
        assert outcome.needs_restart == ("store.durability",)
        assert broker.status().store.durability == "disk"


def test_another_folder_may_be_named(home: Path, tmp_path: Path) -> None:
    configure(home, f'folder = "{tmp_path / "elsewhere"}"')
    with Broker(home) as broker:
        keep(broker)
    assert list((tmp_path / "elsewhere").glob("*.log"))
    assert not (home / "store").exists()


# What is refused in the file


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        (['durability = "disc"'], "expected 'disk', 'os' or 'memory'", '"disk"'),
        (["durablity = 1"], "unknown key 'durablity' in [store]", '"durability"'),
        (['durability = "memory"', 'folder = "x"'], "means nothing", "remove the line"),
        (['durability = "memory"', 'key_file = "x"'], "means nothing", "remove the line"),
        (['key_file = "x"', 'key_variable = "Y"'], "both name the key", "keep one"),
        (['key_variable = "Y"', 'key_command = ["z"]'], "both name the key", "keep one"),
        ([f'insecure_plain = "{REASON}"'], "nothing is encrypted", "key_file"),
        (['insecure_plain = "short"', 'key_file = "x"'], "at least 10 characters", ""),
        (['key_variable = "CASEMATE_KEY"'], "does not begin with CASEMATE_", ""),
        (['key_variable = "a b"'], "name of a variable", ""),
        (['key_command = [""]'], "a program as the first word", ""),
        (['key_file = ""'], "the path of a file", ""),
    ],
)
def test_what_would_be_ignored_or_misread_is_refused(
    home: Path, lines: list[str], message: str, hint: str
) -> None:
    configure(home, *lines)
    with pytest.raises(ConfigurationError) as caught:
        Home.open(home).configuration()
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.line is not None


def test_a_variable_sets_how_durable_it_is(home: Path) -> None:
    from casemate import config

    write_key(home, "k")
    variables = {"CASEMATE_STORE__DURABILITY": "os", "CASEMATE_STORE__KEY_FILE": "k"}
    store = config.load(home, variables).store
    assert (store.durability, store.key_file) == ("os", home / "k")
    with pytest.raises(ConfigurationError, match="CASEMATE_STORE__DURABILITY"):
        config.load(home, {"CASEMATE_STORE__DURABILITY": "none"})


def test_reading_plain_data_is_listed_as_a_weakening(home: Path) -> None:
    from casemate import config

    configure(home, 'key_file = "k"', f'insecure_plain = "{REASON}"')
    (listed,) = config.weakenings(config.load(home, {}))
    assert listed == f"store: data that is not encrypted is read ({REASON})"


def test_the_default_text_names_the_default() -> None:
    from casemate import config

    text = config.default_text()
    read = config.parse(Document.parse(text, Path("casemate.toml"), ConfigurationError))
    assert read.store == Store()


# Keys


def by_file(home: Path) -> Store:
    write_key(home, "k", f" {KEY.upper()}\n")
    return Store(key_file=home / "k")


def by_variable(_: Path) -> Store:
    return Store(key_variable="KEY_OF_TEST")


def by_command(_: Path) -> Store:
    return Store(key_command=(sys.executable, "-c", f"print('{KEY}')"))


@pytest.mark.parametrize("source", [by_file, by_variable, by_command])
def test_a_key_comes_from_a_file_a_variable_or_a_command(
    home: Path, source: Callable[[Path], Store]
) -> None:
    assert read_key(source(home), {"KEY_OF_TEST": KEY}) == bytes.fromhex(KEY)


def test_no_key_is_no_key() -> None:
    assert read_key(Store()) is None


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize(
    ("store", "message", "hint"),
    [
        (Store(key_variable="NOT_SET_HERE"), "NOT_SET_HERE", "key_file"),
        (Store(key_command=python("raise SystemExit(3)")), "ended with 3", "by hand"),
        (Store(key_command=python("print('short')")), "holds no key", "openssl rand -hex 32"),
        (Store(key_command=("/no/such/program",)), "cannot be run", "whole path"),
    ],
)
def test_a_key_that_cannot_be_had_is_refused(store: Store, message: str, hint: str) -> None:
    with pytest.raises(StoreError) as caught:
        read_key(store, {})
    assert message in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["", "0f" * 31, "0f" * 33, "xy" * 32, f"{KEY}\n{KEY}\n"])
def test_what_is_no_key_is_refused_and_not_shown(home: Path, text: str) -> None:
    write_key(home, "k", text)
    with pytest.raises(StoreError) as caught:
        read_key(Store(key_file=home / "k"))
    said = f"{caught.value} {caught.value.hint}"
    assert "holds no key" in said
    assert text.strip() == "" or text.strip() not in said


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_that_others_may_read_is_refused(home: Path, mode: int) -> None:
    write_key(home, "k", mode=mode)
    with pytest.raises(StoreError, match="open to other accounts") as caught:
        read_key(Store(key_file=home / "k"))
    assert "chmod 600" in caught.value.hint


def test_an_encrypted_store_shows_nothing_and_needs_its_key(home: Path) -> None:
    write_key(home, "k")
    configure(home, 'key_file = "k"')
    with Broker(home) as broker:
        keep(broker, "lab/secret-topic", "secret payload")
        assert broker.status().store.is_encrypted
    content = b"".join(one.read_bytes() for one in (home / "store").glob("*.log"))
    assert b"secret" not in content
    configure(home)
    with pytest.raises(StoreError, match="is encrypted under key") as caught:
        Broker(home).start()
    assert "give that key" in caught.value.hint
    write_key(home, "other", OTHER)
    configure(home, 'key_file = "other"')
    with pytest.raises(StoreError, match="is encrypted under key"):
        Broker(home).start()
    configure(home, 'key_file = "other"', 'former_key_files = ["k"]')
    with Broker(home) as broker:
        assert is_kept(broker, "lab/secret-topic") == "secret payload"


def test_plain_data_beside_a_key_is_refused_unless_a_reason_is_given(home: Path) -> None:
    with Broker(home) as broker:
        keep(broker)
    write_key(home, "k")
    configure(home, 'key_file = "k"')
    with pytest.raises(StoreError, match="is not encrypted, though a key was given"):
        Broker(home).start()
    configure(home, 'key_file = "k"', f'insecure_plain = "{REASON}"')
    with Broker(home) as broker:
        assert is_kept(broker) == "kept"
        assert broker.status().weakenings == (
            f"store: data that is not encrypted is read ({REASON})",
        )


# Starts that are refused


def test_two_brokers_on_one_store_are_refused(home: Path, tmp_path: Path) -> None:
    configure(home, f'folder = "{tmp_path / "one"}"')
    twin = copy_home()
    try:
        configure(twin, f'folder = "{tmp_path / "one"}"')
        with Broker(home), pytest.raises(StoreInUse, match=str(tmp_path / "one")) as caught:
            Broker(twin).start()
        assert "another folder" in caught.value.hint
        # What was refused holds nothing: the first may have it again.
        with Broker(home):
            pass
    finally:
        shutil.rmtree(twin.parent)


def a_file(store: Path) -> None:
    store.write_text("")


def open_to_others(store: Path) -> None:
    store.mkdir()
    store.chmod(0o777)


def foreign(store: Path) -> None:
    """Two stores in one folder."""
    other = copy_home()
    try:
        for home in (store.parent, other):
            with Broker(home):
                pass
        (segment,) = sorted((other / "store").glob("*.log"))[:1]
        segment.rename(store / "00000009.log")
        content = bytearray((store / "00000009.log").read_bytes())
        content[12:16] = (9).to_bytes(4, "little")
        content[40:44] = crc32c(content[:40]).to_bytes(4, "little")
        content[132:136] = crc32c(content[:132]).to_bytes(4, "little")
        (store / "00000009.log").write_bytes(content)
    finally:
        shutil.rmtree(other.parent)


def newer(store: Path) -> None:
    with Broker(store.parent):
        pass
    (segment,) = sorted(store.glob("*.log"))[:1]
    content = bytearray(segment.read_bytes())
    content[8] = 99
    content[40:44] = crc32c(content[:40]).to_bytes(4, "little")
    segment.write_bytes(content)


def crc32c(content: bytes | bytearray) -> int:
    """The checksum of a segment's header (RFC 3720 §B.4), bit by bit."""
    rest = 0xFFFF_FFFF
    for byte in content:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F6_3B78 if rest & 1 else 0)
    return rest ^ 0xFFFF_FFFF


REFUSED: list[tuple[Callable[[Path], None], str, str]] = [
    (a_file, "no folder", "name another"),
    (open_to_others, "others may write to it", "chmod 700"),
    (foreign, "belongs to another store", "move one of them"),
    (newer, "format 99", "use the newer version"),
]


@pytest.mark.parametrize(
    ("spoil", "message", "hint"), REFUSED, ids=[o[0].__name__ for o in REFUSED]
)
def test_a_store_that_cannot_be_trusted_stops_the_start(
    home: Path, spoil: Callable[[Path], None], message: str, hint: str
) -> None:
    spoil(home / "store")
    with pytest.raises(StoreError) as caught:
        Broker(home).start()
    assert str(home / "store") in str(caught.value)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    said = casemate("run", "--home", home)
    assert said.returncode == 3, said.stderr
    assert said.stdout == ""
    (error, hinted) = said.stderr.splitlines()
    assert error.startswith("error: ")
    assert hinted.startswith("hint: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_store_of_another_account_is_refused(home: Path) -> None:
    (home / "store").mkdir(mode=0o700)
    os.chown(home / "store", 12_345, -1)
    with pytest.raises(StoreError, match="belongs to user 12345") as caught:
        Broker(home).start()
    assert "chown" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_may_only_be_read_is_refused(home: Path) -> None:
    (home / "store").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="its owner may not use it"):
        Broker(home).start()


def test_a_store_in_use_ends_a_command_with_1(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(home, f'folder = "{tmp_path / "one"}"')
    holder = native.Store(tmp_path / "one")
    listener = native.Listener("l", "127.0.0.1", 0)
    server = native.Server.start([listener], [], native.Policy(1, []), limits={}, store=holder)
    try:
        assert execute(["run", "--home", str(home), "--json"]) == 1
        assert '"code": "store-in-use"' in capsys.readouterr().err
    finally:
        server.stop(1.0)


# Damage and failure are told


def test_damage_is_told_and_the_rest_is_served(home: Path) -> None:
    with Broker(home) as broker:
        for number in range(3):
            keep(broker, f"lab/{number}")
    (segment,) = sorted((home / "store").glob("*.log"))[:1]
    content = bytearray(segment.read_bytes())
    content[200] ^= 1
    segment.write_bytes(content)
    with Broker(home) as broker:
        damage = broker.status().store.damage
        assert any(segment.name in words for words in damage)
        assert any("nowhere" in words for words in damage)
        assert is_kept(broker, "lab/2") == "kept"
        listed = [one for one in broker.recent_events if one.kind == "store-damaged"]
        assert [one.detail for one in listed] == list(damage)
    with running("run", "--home", home) as process:
        process.until("damaged ")
        process.stop()
    assert "ERROR store-damaged" in process.text


def test_events_of_the_store_are_values_of_classes() -> None:
    reading = Reading(lambda _: ())
    kinds = {"store-failing": "a", "store-full": "b", "store-recovered": "7", "store-damaged": "c"}

    class Told:
        """An event as the engine tells it, which only the engine can make."""

        def __init__(self, kind: str, detail: str) -> None:
            self.kind, self.detail, self.time_unix_ms = kind, detail, 5

    told = [Told(kind, detail) for kind, detail in kinds.items()]
    assert list(reading.read(told)) == [  # type: ignore[arg-type]
        StoreFailing(time_unix_ms=5, is_full=False, cause="a"),
        StoreFailing(time_unix_ms=5, is_full=True, cause="b"),
        StoreRecovered(time_unix_ms=5, batches=7),
        StoreDamaged(time_unix_ms=5, damage="c"),
    ]


def test_status_and_start_say_how_durable_it_is(home: Path) -> None:
    with running("run", "--home", home) as process:
        assert "on disk before it is acknowledged" in process.until("kept ")
        assert "on disk before it is acknowledged" in casemate("status", "--home", home).stdout
        process.stop()
    configure(home, 'durability = "memory"')
    with running("run", "--home", home) as process:
        assert "nothing outlives the broker" in process.until("kept ")
        process.stop()


def test_much_to_read_is_said_before_clients_can_connect(home: Path) -> None:
    """A file that is no segment of this store counts as bytes all the same: a hole, so none lie."""
    from casemate.broker import keeping

    with Broker(home) as broker:
        keep(broker)
    assert 0 < keeping.size(home / "store") < keeping.READING_BYTES_MIN
    with (sorted((home / "store").glob("*.log"))[-1]).open("r+b") as segment:
        segment.truncate(keeping.READING_BYTES_MIN)
    with running("run", "--home", home) as process:
        process.until("store-reading")
        process.until("listening ")
        process.stop()


def test_the_errors_of_a_store_are_errors_of_casemate_and_not_of_the_broker() -> None:
    assert issubclass(StoreInUse, StoreError)
    assert issubclass(StoreError, CasemateError)
    assert not issubclass(StoreError, BrokerError)
