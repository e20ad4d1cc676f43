"""The home: made whole or not at all, opened only when nobody else can touch its secrets."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from casemate import home as room
from casemate import pki
from casemate.errors import (
    AccountExists,
    AuthorityDamaged,
    AuthorityLocked,
    CasemateError,
    CredentialsRefused,
    FileExposed,
    HomeError,
    HomeExists,
    HomeMissing,
    IdentityMissing,
    LifetimeRefused,
    NameRefused,
    PkiError,
    PolicyError,
    UnknownAccount,
    UnknownRole,
    WeakPassword,
)
from casemate.files import overwrite
from casemate.home import Home

SECRET = "correct-horse-battery-staple-7"
PHRASE = "three unrelated words"

PARTS = {
    "accounts.db", "casemate.toml", "policy.toml",
    "identities/operator/ca.crt", "identities/operator/client.crt",
    "identities/operator/client.key", "pki/chain.crt", "pki/issuer.crt", "pki/issuer.key",
    "pki/root.crt", "pki/root.key", "pki/server.crt", "pki/server.key",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    Home.init(tmp_path / "home")
    return Home.open(tmp_path / "home")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_home_has_all_parts_and_reports_each(tmp_path: Path) -> None:
    report = Home.init(tmp_path / "a" / "home", ["Broker.Example", "192.0.2.9"])
    assert report.home == tmp_path / "a" / "home"
    assert files(report.home) == PARTS
    assert {str(path.relative_to(report.home)) for path in report.paths} == PARTS
    assert report.operator == "operator"
    assert {"localhost", "127.0.0.1", "::1", "broker.example", "192.0.2.9"} <= set(
        report.server_names
    )
    root = (report.home / "pki" / "root.crt").read_bytes()
    assert report.fingerprint == pki.fingerprint(root)
    assert not report.keys_encrypted
    assert list((tmp_path / "a").iterdir()) == [report.home]


def test_cve_2017_9868_nothing_in_a_new_home_is_for_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Home.init(tmp_path / "home")
    finally:
        os.umask(before)
    for path in (tmp_path / "home", *(tmp_path / "home").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        else:
            assert mode == (0o644 if path.suffix == ".crt" else 0o600), path


def test_a_new_home_is_safe_and_consistent(home: Home) -> None:
    configuration = home.configuration()
    assert [one.kind for one in configuration.listeners] == ["tls", "wss"]
    assert all(one.anonymous_role is None for one in configuration.listeners)
    assert {one.key for one in configuration.listeners} == {home.path / "pki" / "server.key"}
    policy = home.policy()
    with home.accounts() as store:
        (operator,) = store.list()
        policy.require_roles(operator.roles, "operator")
        assert (operator.name, operator.kind, operator.has_password) == ("operator", "user", False)
        leaf = x509.load_pem_x509_certificate(
            home.local_identity("operator").certificate.read_bytes()
        )
        assert [one.fingerprint for one in store.certificates()] == [
            leaf.fingerprint(hashes.SHA256())
        ]
        with pytest.raises(CredentialsRefused):
            store.verify("operator", "operator")


def test_the_operator_gets_a_password_only_if_asked(tmp_path: Path) -> None:
    Home.init(tmp_path / "home", operator="ann", password=SECRET)
    with Home.open(tmp_path / "home").accounts() as store:
        assert store.verify("ann", SECRET).roles == ("operator",)
    for path in (tmp_path / "home").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"password": "short"}, WeakPassword),
        ({"operator": "../evil"}, NameRefused),
        ({"operator": ""}, NameRefused),
        ({"names": ["a b"]}, PkiError),
        ({"passphrase": "short"}, PkiError),
    ],
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, options: dict[str, Any], error: type[CasemateError]
) -> None:
    with pytest.raises(error):
        Home.init(tmp_path / "home", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("step", ["issue_server", "create", "default_text", "rename"])
def test_a_failure_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, step: str
) -> None:
    target = tmp_path / "home"
    if existing:
        target.mkdir(mode=0o700)
        (target / "mine.txt").write_text("mine")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "issue_server":
        monkeypatch.setattr(pki.Authority, "issue_server", fail)
    elif step == "create":
        monkeypatch.setattr(room.identity.Accounts, "create", fail)
    elif step == "default_text":
        monkeypatch.setattr(room.config, "default_text", fail)
    else:
        real = Path.rename
        moves = []

        def rename(path: Path, to: Path) -> Path:
            inside = to == target or to.parent == target
            moves.append(to) if inside and to.name != "back" else None
            # The last move into place fails: everything before it must be undone.
            if inside and (to == target or to.name == "casemate.toml"):
                fail()
            return real(path, to)

        monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((OSError, HomeError)):
        Home.init(target)
    monkeypatch.undo()
    assert files(tmp_path) == ({"home/mine.txt"} if existing else set())
    assert set(tmp_path.iterdir()) == ({target} if existing else set())
    Home.init(target)
    Home.open(target)


def test_a_home_can_be_made_in_a_folder_that_holds_other_things(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "notes.txt").write_text("mine")
    Home.init(tmp_path)
    assert files(tmp_path) == PARTS | {"notes.txt"}
    Home.open(tmp_path)


def test_a_home_is_never_overwritten(home: Home) -> None:
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    with pytest.raises(HomeExists):
        Home.init(home.path)
    assert before == {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("part", ["pki", "identities", "accounts.db", "policy.toml"])
def test_a_part_of_a_home_is_never_overwritten(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir()
    with pytest.raises(HomeExists, match=part):
        Home.init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [part]


def test_a_file_is_no_place_for_a_home(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(HomeError):
            Home.init(target)
    assert (tmp_path / "file").read_text() == "mine"


def test_of_two_makers_one_fails_and_the_home_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    real = room._put_in_place
    second: list[str] = []

    def late(workshop: Path, target: Path, *, lasting: bool) -> None:
        monkeypatch.setattr(room, "_put_in_place", real)
        second.append(Home.init(target).fingerprint)
        real(workshop, target, lasting=lasting)

    monkeypatch.setattr(room, "_put_in_place", late)
    with pytest.raises(HomeExists):
        Home.init(tmp_path)
    assert Home.open(tmp_path).authority().fingerprint == second[0]
    assert files(tmp_path) == PARTS


def test_a_folder_that_others_may_write_is_no_place_for_a_home(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(FileExposed):
        Home.init(tmp_path / "open")


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_a_home_is_said(tmp_path: Path, folder: str) -> None:
    with pytest.raises(HomeMissing) as caught:
        Home.open(tmp_path / folder)
    assert "casemate init" in caught.value.hint


@pytest.mark.parametrize(
    "file", ["accounts.db", "pki/server.key", "pki/issuer.key", "pki/root.key", "pki"]
)
@pytest.mark.parametrize("bits", [0o040, 0o004, 0o020, 0o002])
def test_a_secret_that_others_may_touch_is_refused(home: Home, file: str, bits: int) -> None:
    path = home.path / file
    path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)
    with pytest.raises(FileExposed) as caught:
        Home.open(home.path)
    assert str(path) in str(caught.value)
    assert "chmod" in caught.value.hint


@pytest.mark.parametrize(
    "file", [".", "casemate.toml", "policy.toml", "identities", "pki/root.crt", "pki/server.crt"]
)
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_what_decides_over_access_is_refused_where_others_may_change_it(
    home: Home, file: str, bits: int
) -> None:
    path = home.path / file
    path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)
    with pytest.raises(FileExposed):
        Home.open(home.path)
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o022)
    Home.open(home.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_account_is_refused(home: Home) -> None:
    os.chown(home.path / "policy.toml", 65_534, -1)
    with pytest.raises(FileExposed, match="belongs to another"):
        Home.open(home.path)


@pytest.mark.parametrize("file", ["policy.toml", "accounts.db", "pki/server.key", "pki/root.crt"])
def test_a_home_with_a_part_missing_is_refused(home: Home, file: str) -> None:
    (home.path / file).unlink()
    with pytest.raises(HomeError, match=Path(file).name):
        Home.open(home.path)


def test_a_home_works_without_the_authority_s_keys_but_issues_nothing(home: Home) -> None:
    (home.path / "pki" / "root.key").unlink()
    Home.open(home.path).add_device("t7", "sensor")
    (home.path / "pki" / "issuer.key").unlink()
    opened = Home.open(home.path)
    assert opened.local_identity("t7")
    with pytest.raises(AuthorityDamaged):
        opened.add_device("t8", "sensor")
    assert not opened.has_identity("t8")


def test_a_device_gets_an_account_a_certificate_and_its_files(home: Home) -> None:
    identity = home.add_device("t7", "sensor", lifetime_days=30)
    assert identity == home.local_identity("t7")
    leaf, issuer = x509.load_pem_x509_certificates(identity.certificate.read_bytes())
    assert issuer.subject == leaf.issuer
    assert identity.ca.read_bytes() == (home.path / "pki" / "root.crt").read_bytes()
    assert home.client_authorities().startswith(identity.ca.read_bytes())
    assert home.client_authorities().count(b"BEGIN CERTIFICATE") == 2
    with home.accounts() as store:
        account = store.get("t7")
        assert (account.kind, account.roles) == ("device", ("sensor",))
        assert account.certificates == (
            (leaf.fingerprint(hashes.SHA256()), int(leaf.not_valid_after_utc.timestamp())),
        )
        assert not account.has_password
    assert stat.S_IMODE(identity.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(identity.key.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("name", "role", "days", "error"),
    [
        ("t7", "senser", 30, UnknownRole),
        ("operator", "sensor", 30, AccountExists),
        ("OPERATOR", "sensor", 30, AccountExists),
        ("../evil", "sensor", 30, NameRefused),
        ("#", "sensor", 30, NameRefused),
        ("t7", "sensor", 0, LifetimeRefused),
    ],
)
def test_a_refused_device_leaves_nothing(
    home: Home, name: str, role: str, days: int, error: type[CasemateError]
) -> None:
    before = files(home.path)
    with pytest.raises(error):
        home.add_device(name, role, lifetime_days=days)
    assert files(home.path) == before
    with home.accounts() as store:
        assert [account.name for account in store.list()] == ["operator"]


def test_a_device_whose_files_cannot_be_written_is_not_added(home: Home) -> None:
    blocked = home.path / "identities" / "t7"
    blocked.mkdir()
    (blocked / "old").write_text("old")
    with pytest.raises(HomeError, match="cannot be written"):
        home.add_device("t7", "sensor")
    assert files(home.path / "identities") == {
        "t7/old", "operator/ca.crt", "operator/client.crt", "operator/client.key",
    }  # fmt: skip
    assert {path.name for path in (home.path / "identities").iterdir()} == {"t7", "operator"}
    with home.accounts() as store:
        assert len(store.list()) == 1


def test_cve_2018_12550_without_a_policy_no_device_is_added(home: Home) -> None:
    (home.path / "policy.toml").write_text("")
    with pytest.raises(PolicyError):
        home.add_device("t7", "sensor")


def test_an_encrypted_authority_needs_its_passphrase(tmp_path: Path) -> None:
    report = Home.init(tmp_path / "home", passphrase=PHRASE)
    assert report.keys_encrypted
    home = Home.open(tmp_path / "home")
    for wrong in (None, "wrong words"):
        with pytest.raises(AuthorityLocked):
            home.add_device("t7", "sensor", wrong)
    with home.accounts() as store:
        assert len(store.list()) == 1
    home.add_device("t7", "sensor", PHRASE)


def test_a_removed_device_is_gone_with_its_files_and_can_come_back(home: Home) -> None:
    first = home.add_device("t7", "sensor").certificate.read_bytes()
    home.remove_device("t7")
    assert not home.has_identity("t7")
    assert not (home.path / "identities" / "t7").exists()
    with home.accounts() as store:
        assert [one.account for one in store.certificates()] == ["operator"]
    with pytest.raises(UnknownAccount):
        home.remove_device("t7")
    assert home.add_device("t7", "sensor").certificate.read_bytes() != first


def test_users_and_devices_are_not_mistaken_for_each_other(home: Home) -> None:
    home.add_device("t7", "sensor")
    home.add_user("ann", ["console"], SECRET)
    with pytest.raises(UnknownAccount, match="is a user"):
        home.remove_device("ann")
    with pytest.raises(UnknownAccount, match="is a device"):
        home.remove_user("t7")
    home.remove_user("ann")
    with home.accounts() as store:
        assert [account.name for account in store.list()] == ["operator", "t7"]


def test_a_refused_user_leaves_nothing(home: Home) -> None:
    for name, roles, password, error in (
        ("ann", ["nobody"], SECRET, UnknownRole),
        ("ann", ["console"], "short", WeakPassword),
        ("a/b", ["console"], SECRET, NameRefused),
        ("operator", ["console"], SECRET, AccountExists),
    ):
        with pytest.raises(error):
            home.add_user(name, roles, password)
    with home.accounts() as store:
        assert len(store.list()) == 1


@pytest.mark.parametrize("name", ["nobody", "Operator"])
def test_an_identity_that_is_not_there_is_said(home: Home, name: str) -> None:
    with pytest.raises(IdentityMissing) as caught:
        home.local_identity(name)
    assert "device add" in caught.value.hint


@pytest.mark.parametrize("name", ["../pki", "..", "", "/etc", "a/../operator", "operator\0"])
def test_no_name_leads_out_of_the_identities(home: Home, name: str) -> None:
    assert not home.has_identity(name)
    with pytest.raises(NameRefused):
        home.local_identity(name)


def test_an_identity_whose_key_others_may_read_is_refused(home: Home) -> None:
    home.local_identity("operator").key.chmod(0o644)
    with pytest.raises(FileExposed):
        home.local_identity("operator")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what is put on the disk, and what gets its name, in order."""
    noted: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_sync(descriptor: int) -> None:
        noted.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        noted.append(f"{self} is {target}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    return noted


def test_a_home_is_on_the_disk_as_a_whole_before_it_has_its_name(
    tmp_path: Path, synced: list[str]
) -> None:
    home = tmp_path / "home"
    report = Home.init(home)
    named = next(number for number, one in enumerate(synced) if one.endswith(f" is {home}"))
    workshop = synced[named].partition(" is ")[0]
    before = synced[:named]
    for path in report.paths:
        assert before.count(f"{workshop}/{path.relative_to(home)}") == 1, path
    for folder in ("", "/pki", "/identities", "/identities/operator"):
        # Behind the files in it.
        assert workshop + folder in before
    assert before[-1] == workshop
    assert synced[named + 1 :] == [str(home), str(tmp_path)]


def test_a_device_is_on_the_disk_before_it_has_its_name(tmp_path: Path, synced: list[str]) -> None:
    Home.init(tmp_path / "home")
    synced.clear()
    Home.open(tmp_path / "home").add_device("t7", "sensor")
    folder = tmp_path / "home" / "identities" / "t7"
    named = next(number for number, one in enumerate(synced) if one.endswith(f" is {folder}"))
    assert {Path(one).name for one in synced[:named]} >= {"client.key", "client.crt", "ca.crt"}
    assert synced[named + 1] == str(folder.parent)


def test_a_home_that_nobody_would_look_for_waits_for_no_disk(
    tmp_path: Path, synced: list[str]
) -> None:
    Home.init(tmp_path / "home", lasting=False)
    Home.open(tmp_path / "home", lasting=False).add_device("t7", "sensor")
    assert [one for one in synced if " is " not in one] == []
    assert Home.open(tmp_path / "home").has_identity("t7")


def test_a_file_is_written_over_only_where_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / "status"
    with pytest.raises(HomeError, match="cannot be written"):
        overwrite(file, b"new")
    assert not file.exists()
    file.write_bytes(b"what was there before")
    file.chmod(0o600)
    overwrite(file, b"new")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o600)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(HomeError):
        overwrite(tmp_path / "link", b"through a link")
    assert file.read_bytes() == b"new"
