"""`casemate doctor`: each check fires where it should and is silent where all is well."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from casemate import Broker, config, pki
from casemate.broker.status import Claim
from casemate.cli import finding
from casemate.cli.app import execute
from casemate.cli.doctor import examine
from casemate.cli.finding import RISKS, Finding
from casemate.errors import HomeMissing
from casemate.home import Home
from tests.unit.python.commands import ROOT

REASON = "the network is a cable"
TLS = '[[listeners]]\nkind = "tls"\nport = 0\n'
CLOSED = TLS + 'client_certificates = "required"\n'

PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as `casemate init --encrypt` makes it, with one device."""
    home = tmp_path_factory.mktemp("made") / "home"
    Home.init(home, (), PASSPHRASE)
    Home.open(home).add_device("t7", "sensor", PASSPHRASE)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "home"
    shutil.copytree(made, copied)
    return copied


def found(home: Path, days: float = 0, **variables: str) -> list[Finding]:
    # Not the moment of collection: the homes are made minutes later in a long run.
    return list(examine(home, pki.utc_now() + timedelta(days=days), variables))


def test_a_new_home_has_nothing_to_say(home: Path) -> None:
    """Its operator may use every topic: a person, whose role no device holds."""
    assert found(home) == []


def configure(text: str) -> Callable[[Path], None]:
    return lambda home: (home / "casemate.toml").write_text(text) and None


def policy(rule: str, role: str = "sensor") -> Callable[[Path], None]:
    text = f"[roles.operator]\nallow = []\n[roles.{role}]\nallow = [{{ {rule} }}]\n"
    return lambda home: (home / "policy.toml").write_text(text) and None


def mode(name: str, bits: int) -> Callable[[Path], None]:
    return lambda home: (home / name).chmod(bits)


def later(name: str) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        at_s = (pki.utc_now() + timedelta(hours=1)).timestamp()
        os.utime(home / name, (at_s, at_s))

    return change


def listening(kind: str, host: str, *lines: str) -> Callable[[Path], None]:
    text = f'[[listeners]]\nkind = "{kind}"\nhost = "{host}"\nport = 1\n'
    return configure(text + "".join(f"{line}\n" for line in lines))


def unix(*lines: str) -> Callable[[Path], None]:
    text = '[[listeners]]\nkind = "unix"\nsocket = "s"\n'
    return configure(text + "".join(f"{line}\n" for line in lines))


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        for one in changes:
            one(home)

    return change


def expose_key_authority(home: Path) -> None:
    """Puts the keys of an authority that has no passphrase in place."""
    shutil.rmtree(home / "pki")
    authority = pki.Authority.create(home / "pki", "here")
    issued = authority.issue_server(["localhost"])
    (home / "pki/server.key").write_bytes(issued.key_pem)
    (home / "pki/server.key").chmod(0o600)
    (home / "pki/server.crt").write_bytes(issued.chain_pem)


def disable(home: Path) -> None:
    with Home.open(home).accounts() as store:
        store.disable("t7")
        store.disable("operator")


Change = Callable[[Path], object]


def crc32c(content: bytes | bytearray) -> int:
    """The checksum of a segment's header (RFC 3720 §B.4), bit by bit."""
    rest = 0xFFFF_FFFF
    for byte in content:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F6_3B78 if rest & 1 else 0)
    return rest ^ 0xFFFF_FFFF


def kept(
    lines: str = "",
    *,
    damage: bool = False,
    aside: bool = False,
    newer: bool = False,
    folder_mode: int = 0o700,
) -> Change:
    """Lets a broker keep something, then does to the store what is asked for."""

    def change(home: Path) -> None:
        configure(TLS)(home)
        with Broker(home) as broker, broker.client("t7").blocking() as device:
            for number in range(3):
                device.publish(f"devices/t7/{number}", "x", qos=1, retain=True)
        store = home / "store"
        (segment,) = sorted(store.glob("*.log"))[:1]
        content = bytearray(segment.read_bytes())
        if damage:
            # Of the first commit; others stand behind it.
            content[200] ^= 1
        if newer:
            content[8] = 99
            content[40:44] = crc32c(content[:40]).to_bytes(4, "little")
        segment.write_bytes(content)
        if aside:
            segment.rename(segment.with_name(f"{segment.name}.damaged"))
        store.chmod(folder_mode)
        (home / "k").write_text("0" * 64)
        (home / "k").chmod(0o600)
        configure(f"{TLS}[store]\n{lines}")(home)

    return change


PLAIN = f'insecure_plaintext = "{REASON}"'
ANONYMOUS = ('anonymous_role = "sensor"', f'insecure_anonymous = "{REASON}"')
PROXY = ('proxy_from = ["0.0.0.0/0"]', f'insecure_proxy_from_anywhere = "{REASON}"')

FIRES: list[tuple[str, Change, float, str]] = [
    ("file-open", mode("accounts.db", 0o644), 0, "chmod 600"),
    ("file-open", mode("pki/server.key", 0o640), 0, "chmod 600"),
    ("file-open", mode("pki", 0o755), 0, "chmod 700"),
    ("file-open", mode("policy.toml", 0o666), 0, "chmod go-w"),
    ("file-open", mode("casemate.toml", 0o620), 0, "chmod go-w"),
    ("file-open", mode("identities/t7/client.key", 0o644), 0, "chmod 600"),
    ("file-open", mode("pki/issuer.key", 0o644), 0, "chmod 600"),
    ("file-missing", lambda home: (home / "pki/server.key").unlink(), 0, "copy"),
    ("configuration-wrong", configure(TLS + "prot = 1\n"), 0, '"port"'),
    ("policy-wrong", lambda home: (home / "policy.toml").write_text(""), 0, "roles"),
    ("accounts-unreadable", lambda home: (home / "accounts.db").write_bytes(b"x" * 99), 0, ""),
    ("plaintext", listening("tcp", "192.0.2.1", PLAIN), 0, 'kind = "tls"'),
    ("plaintext", listening("ws", "192.0.2.1", PLAIN), 0, 'kind = "wss"'),
    ("anonymous-network", listening("tls", "192.0.2.1", *ANONYMOUS), 0, "casemate.toml:5"),
    ("anonymous-local", listening("tls", "127.0.0.1", ANONYMOUS[0]), 0, "casemate.toml:5"),
    ("tls12", listening("tls", "::1", f'insecure_tls12 = "{REASON}"'), 0, "remove it"),
    ("proxy-anywhere", listening("tls", "::1", *PROXY), 0, "load balancers"),
    ("socket-open", unix('mode = "0666"', f'insecure_socket_mode = "{REASON}"'), 0, '"0600"'),
    (
        "certificates-off",
        listening("tls", "192.0.2.1", 'client_certificates = "none"'),
        0,
        '"optional"',
    ),
    ("limit-off", configure(TLS + "[limits]\nreceive_max = 65_535\n"), 0, "1024"),
    ("log-silent", configure(TLS + '[log]\nlevel = "error"\n'), 0, '"warning"'),
    ("wide-publish", policy('publish = "#"'), 0, "policy.toml:4"),
    ("wide-publish", policy('publish = "+/temp"'), 0, "policy.toml:4"),
    ("wide-subscribe", policy('subscribe = "#"'), 0, "%u"),
    ("client-id-rule", policy('publish = "devices/%c/#"'), 0, "%u"),
    ("role-undefined", policy('publish = "a"', "other"), 0, "[roles.sensor]"),
    (
        "role-undefined",
        both(listening("tls", "::1", 'anonymous_role = "guest"')),
        0,
        "[roles.guest]",
    ),
    ("certificate-ending", disable, 336, "casemate renew"),
    ("certificate-expired", disable, 366, "casemate renew"),
    ("certificate-expired", disable, 20_000, "casemate init"),
    (
        "certificate-unreadable",
        lambda home: (home / "pki/server.crt").write_text("no"),
        0,
        "casemate renew",
    ),
    (
        "certificate-unreadable",
        configure(TLS + 'client_ca = "missing.crt"\n'),
        0,
        "missing.crt",
    ),
    ("account-ending", lambda home: None, 336, "casemate device remove t7"),
    ("account-expired", lambda home: None, 366, "casemate device add t7 --role sensor"),
    ("clock-behind", later("accounts.db"), 0, "NTP"),
    ("clock-behind", lambda home: None, -2, "NTP"),
    ("authority-key", expose_key_authority, 0, "--encrypt"),
    ("durability-memory", configure(f'{TLS}[store]\ndurability = "memory"\n'), 0, "toml:5"),
    ("durability-os", configure(f'{TLS}[store]\ndurability = "os"\n'), 0, "casemate.toml:5"),
    ("store-plain", kept(), 0, "docs/durability.md"),
    ("store-mixed", kept(f'key_file = "k"\ninsecure_plain = "{REASON}"\n'), 0, "store compact"),
    ("store-key", kept('key_file = "no"\n'), 0, ""),
    ("store-key", kept('key_file = "k"\n'), 0, "allow plain"),
    ("store-damaged", kept(damage=True), 0, "backup"),
    ("store-damaged", kept(aside=True), 0, "backup"),
    ("store-unreadable", kept(newer=True), 0, "newer version"),
    ("file-open", kept(folder_mode=0o755), 0, "chmod 700"),
]


@pytest.mark.parametrize(("check", "change", "days", "mend"), FIRES)
def test_each_check_fires_and_says_what_mends_it(
    home: Path, check: str, change: Change, days: float, mend: str
) -> None:
    assert check not in {one.check for one in found(home)}
    change(home)
    said = [one for one in found(home, days) if one.check == check]
    assert said
    assert any(mend in one.mend for one in said)
    assert all(one.words and one.mend and one.risk.endswith(".") for one in said)


QUIET: list[tuple[str, Change, float]] = [
    ("plaintext on loopback is nobody's to read", listening("tcp", "127.0.0.1"), 0),
    ("a required certificate", listening("tls", "192.0.2.1", CLOSED.splitlines()[-1]), 0),
    ("no certificates on loopback", listening("tls", "::1", 'client_certificates = "none"'), 0),
    ("named load balancers", listening("tls", "192.0.2.1", 'proxy_from = ["10.0.0.5"]'), 0),
    ("a socket of the group that is the owner's", unix('mode = "0600"'), 0),
    ("a limit below the highest", configure(TLS + "[limits]\nreceive_max = 65_534\n"), 0),
    ("a log that says more", configure(TLS + '[log]\nlevel = "info"\n'), 0),
    ("a rule with the proven name", policy('both = "devices/%u/%c/#"'), 0),
    ("a certificate with more than 30 days", lambda home: None, 334),
    ("an authority kept elsewhere", lambda home: (home / "pki/root.key").unlink(), 0),
    ("identities moved to their devices", lambda home: shutil.rmtree(home / "identities/t7"), 0),
]


@pytest.mark.parametrize(("change", "days"), [one[1:] for one in QUIET], ids=[o[0] for o in QUIET])
def test_what_is_safe_is_passed_over(home: Path, change: Change, days: float) -> None:
    change(home)
    assert found(home, days) == []


def test_a_disabled_account_neither_expires_nor_holds_a_role(home: Path) -> None:
    policy('publish = "#"')(home)
    disable(home)
    assert {one.check for one in found(home, 366)} == {"certificate-expired"}


def test_a_variable_is_named_where_it_weakens(home: Path) -> None:
    (one,) = found(home, CASEMATE_LOG__LEVEL="error")
    assert one.check == "log-silent"
    assert one.mend.startswith("unset or change CASEMATE_LOG__LEVEL")


def test_every_weakening_that_a_configuration_lists_is_a_finding(home: Path) -> None:
    weakening = [name for name in config.Listener.model_fields if name.startswith("insecure_")]
    fired = {check for check, *_ in FIRES}
    by_option = {
        "insecure_plaintext": "plaintext",
        "insecure_anonymous": "anonymous-network",
        "insecure_tls12": "tls12",
        "insecure_proxy_from_anywhere": "proxy-anywhere",
        "insecure_socket_mode": "socket-open",
    }
    assert set(weakening) == set(by_option)
    assert set(by_option.values()) <= fired


ADVICE = ["store-plain"]
"""What is said of each store without a key, as soon as there is something in it."""


def keep(broker: Broker) -> None:
    """Has something kept: a store is empty for a moment after the start."""
    with broker.client("t7").blocking() as device:
        device.publish("devices/t7/kept", "x", qos=1, retain=True)


RUNNING = {
    "broker-problem",
    "broker-silent",
    "not-in-force",
    "store-failing",
    "weakened-in-force",
}


def test_a_broker_that_says_that_its_store_fails_is_believed(home: Path) -> None:
    """Its status alone is looked at: the disk may be fine for everybody else."""
    configure(TLS)(home)
    with Broker(home) as broker:
        status = broker.status()
    store = replace(status.store, failing="a commit cannot be written: no space", is_full=True)
    claim = Claim(home)
    try:
        replace(status, updated_unix_s=int(time.time()), store=store).write(home)
        failing = [one for one in found(home) if one.check == "store-failing"]
        assert "its disk is full" in failing[0].words
        assert "by itself" in failing[0].mend
        hurt = replace(store, failing="", damage=("00000001.log: 8 bytes from 64 on",))
        replace(status, updated_unix_s=int(time.time()), store=hurt).write(home)
        checks = [one.check for one in found(home)]
        assert "store-damaged" in checks
        assert "store-failing" not in checks
    finally:
        claim.release()
        (home / "status.json").unlink()


def test_a_running_broker_is_asked_too(home: Path) -> None:
    configure(TLS)(home)
    with Broker(home) as broker:
        keep(broker)
        assert [one.check for one in found(home)] == ADVICE
        configure(CLOSED)(home)
        assert [one.check for one in found(home)] == ["not-in-force", *ADVICE]
        configure(TLS)(home)
        (home / "policy.toml").write_text("[roles.")
        broker.reload()
        checks = [one.check for one in found(home)]
        assert sorted(checks) == ["broker-problem", "policy-wrong", *ADVICE]
        shutil.copy(home / "status.json", home / "kept.json")
        silent = [one for one in found(home, 1) if one.check == "broker-silent"]
        assert "has said nothing for" in silent[0].words


def test_what_a_variable_of_the_broker_weakens_is_a_danger_that_no_file_explains(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(TLS)(home)
    variables = {"CASEMATE_LISTENERS__0__INSECURE_TLS12": REASON}
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        broker = Broker(home)
        broker.start()
    try:
        keep(broker)
        assert [one.check for one in found(home)] == ["weakened-in-force", *ADVICE]
        assert [one.check for one in found(home, **variables)] == ["tls12", *ADVICE]
    finally:
        broker.stop()


def test_a_folder_that_cannot_be_looked_at_is_an_error_and_no_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert execute(["doctor", "--home", str(home)]) == 3
    assert "permission denied" in capsys.readouterr().err


def test_the_tests_make_every_check_fire_and_the_guide_names_each() -> None:
    assert {check for check, *_ in FIRES} | RUNNING == set(RISKS)
    guide = (ROOT / "docs/guides/doctor.md").read_text(encoding="utf-8")
    named = re.findall(
        r"^\| `([a-z0-9-]+)` \| (danger|warning|note|advice) \|", guide, re.MULTILINE
    )
    assert dict(named) == {check: weight for check, (weight, _) in RISKS.items()}


def test_the_worst_finding_is_the_exit_code(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--home", str(home)]
    assert execute(arguments) == 0
    assert capsys.readouterr().out == "found    nothing\n"
    configure(TLS + '[log]\nlevel = "error"\n')(home)
    assert execute(arguments) == 1
    assert "[log-silent]" in capsys.readouterr().out
    mode("accounts.db", 0o644)(home)
    assert execute([*arguments, "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["worst"] == "danger"
    assert [one["check"] for one in said["findings"]] == ["file-open", "log-silent"]
    assert set(said["findings"][0]) == {"check", "weight", "found", "risk", "mend"}


def test_notes_alone_end_with_0(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expose_key_authority(home)
    assert execute(["doctor", "--home", str(home)]) == 0
    assert "found    1 note\n" in capsys.readouterr().out
    assert finding.worst([]) is None


def test_without_a_home_it_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--home", str(tmp_path)]) == 3
    assert "no home" in capsys.readouterr().err
    with pytest.raises(HomeMissing):
        list(examine(tmp_path, pki.utc_now()))


def test_renew_mends_an_ending_certificate(
    made: Path, home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE)
    (home / "pki/server.crt").write_text("damaged")
    words = ["renew", "--home", str(home), "--passphrase-file", str(secret)]
    assert execute([*words, "--days", "20"]) == 0
    assert [one.check for one in found(home)] == ["certificate-ending"]
    assert execute([*words, "--name", "mqtt.example", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "mqtt.example" in said["names"]
    assert "localhost" in said["names"]
    assert found(home) == []
    with Broker(home):
        pass


def test_renew_without_the_authoritys_key_changes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (home / "pki/server.crt").read_bytes()
    (home / "pki/issuer.key").unlink()
    assert execute(["renew", "--home", str(home)]) == 1
    assert "issuer.key" in capsys.readouterr().err
    assert (home / "pki/server.crt").read_bytes() == before
