"""Accounts: who proves what, in equal time, and refusal wherever the store is in doubt."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import argon2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.errors import (
    AccountExists,
    CredentialsRefused,
    FileExposed,
    IdentityError,
    NameRefused,
    UnknownAccount,
    WeakPassword,
)
from casemate.identity import Accounts, PasswordCost

CHEAP = PasswordCost(time=1, memory_kib=64)
SECRET = "correct-horse-battery-staple-7"
DIGEST = bytes(range(32))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Accounts]:
    with Accounts.create(tmp_path / "accounts.db", cost=CHEAP) as accounts:
        yield accounts


def refused(store: Accounts, name: Any, password: Any) -> str:  # noqa: ANN401 - hostile.
    with pytest.raises(CredentialsRefused) as caught:
        store.verify(name, password)
    return str(caught.value)


def test_a_new_store_knows_nobody(store: Accounts) -> None:
    """EMQX, NanoMQ: a default account with a known password."""
    assert store.list() == ()
    assert store.certificates() == ()
    for name in ("admin", "root", "operator", "guest", "user", "casemate"):
        for password in ("", "admin", "public", "guest", "root", name):
            refused(store, name, password)


def test_an_account_is_described_without_its_secrets(store: Accounts) -> None:
    account = store.add("ann", "user", ["b", "a", "b"], SECRET)
    assert account == store.get("ann") == store.list()[0]
    assert (account.name, account.kind, account.roles) == ("ann", "user", ("a", "b"))
    assert account.has_password
    assert not account.disabled
    assert "argon2" not in repr(account)


def test_the_right_password_proves_the_account_and_nothing_else_does(store: Accounts) -> None:
    store.add("ann", "user", ["a"], SECRET)
    assert store.verify("ann", SECRET).name == "ann"
    assert store.verify("ann", SECRET.encode()).roles == ("a",)
    messages = {
        refused(store, "ann", wrong)
        for wrong in (SECRET[:-1], SECRET + " ", SECRET.upper(), "x", b"\xff", "\ud800", "\0")
    }
    messages |= {refused(store, name, SECRET) for name in ("Ann", "ANN", "ann ", "bob", "ann\0")}
    assert messages == {"the name and password are not accepted"}


@pytest.mark.parametrize("password", [None, "", b""])
def test_cve_2016_9877_a_name_without_a_password_proves_nobody(
    store: Accounts, password: str | bytes | None
) -> None:
    store.add("ann", "user", ["a"], SECRET)
    store.add("t7", "device", ["a"])
    for name in ("ann", "t7", "nobody", ""):
        refused(store, name, password)


def test_an_account_without_a_password_is_proven_by_none(store: Accounts) -> None:
    store.add("t7", "device", ["a"])
    for password in ("None", "NULL", "t7", SECRET, "$argon2id$"):
        refused(store, "t7", password)


def test_a_password_longer_than_the_bound_is_refused_before_it_is_hashed(store: Accounts) -> None:
    store.add("ann", "user", ["a"], SECRET)
    # Of this thread's work, not of the clock: hashing would be a hundred times as much.
    begun = time.thread_time()
    refused(store, "ann", b"x" * 50_000_000)
    assert time.thread_time() - begun < 0.5


HOSTILE = ["", "#", "+", "a/b", "' OR 1=1 --", 'ann"; DROP TABLE account; --', "%", "_", "_nn",
           "*", "\x00", "ann\x00", "\ud800", "x" * 100_000, "ann\n", "-", "\u0430nn"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_everywhere(store: Accounts, name: str) -> None:
    store.add("ann", "user", ["a"], SECRET)
    refused(store, name, SECRET)
    with pytest.raises(UnknownAccount):
        store.get(name)
    with pytest.raises(NameRefused):
        store.add(name, "user")
    for change in (
        lambda: store.remove(name),
        lambda: store.disable(name),
        lambda: store.set_roles(name, []),
        lambda: store.set_password(name, SECRET),
        lambda: store.add_certificate(name, DIGEST, 1),
    ):
        with pytest.raises(UnknownAccount):
            change()
    assert [account.name for account in store.list()] == ["ann"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(st.text(max_size=20), st.text(max_size=20) | st.binary(max_size=20) | st.none())
def test_no_name_and_password_do_more_than_be_refused(
    store: Accounts, name: str, password: str | bytes | None
) -> None:
    refused(store, name, password)


def test_cve_2021_46434_every_refusal_takes_the_work_of_one_hash(
    store: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts hashes and their cost in place of seconds, which a busy machine would blur."""
    store.add("ann", "user", ["a"], SECRET)
    store.add("t7", "device", ["a"])
    store.add("off", "user", ["a"], SECRET)
    store.disable("off")
    tried: list[argon2.Parameters] = []
    real = argon2.PasswordHasher.verify

    def counted(hasher: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        tried.append(argon2.extract_parameters(stored))
        return bool(real(hasher, stored, password))

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    work = []
    for name in ("ann", "t7", "off", "nobody", "", "a/#", "x" * 1_000):
        tried.clear()
        refused(store, name, "wrong password")
        work.append(list(tried))
    assert len(work[0]) == 1
    assert all(one == work[0] for one in work)


def test_a_disabled_account_is_refused_until_it_is_enabled(store: Accounts) -> None:
    store.add("ann", "user", ["a"], SECRET)
    store.add_certificate("ann", DIGEST, 100)
    store.disable("ann")
    refused(store, "ann", SECRET)
    assert store.certificates() == ()
    assert store.get("ann").disabled
    store.enable("ann")
    assert store.verify("ann", SECRET)
    assert len(store.certificates()) == 1


def test_an_account_that_changes_while_its_hash_is_computed_is_refused(
    store: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add("ann", "user", ["a"], SECRET)
    real = argon2.PasswordHasher.verify
    changes = [
        lambda: store.disable("ann"),
        lambda: store.set_password("ann", SECRET + "-new"),
        lambda: store.remove("ann"),
    ]

    def meanwhile(hasher: argon2.PasswordHasher, stored: str, password: bytes) -> bool:
        matches = bool(real(hasher, stored, password))
        changes[0]()
        return matches

    monkeypatch.setattr(argon2.PasswordHasher, "verify", meanwhile)
    while changes:
        refused(store, "ann", SECRET)
        changes.pop(0)
        if changes:
            store.enable("ann")


def test_a_new_password_ends_the_old_one(store: Accounts) -> None:
    store.add("ann", "user", [], SECRET)
    store.set_password("ann", SECRET + "-new")
    refused(store, "ann", SECRET)
    assert store.verify("ann", SECRET + "-new")
    with pytest.raises(WeakPassword):
        store.set_password("ann", "ann")
    assert store.verify("ann", SECRET + "-new")


@pytest.mark.parametrize("password", ["", "short", "ann", "password123"])
def test_a_weak_password_adds_nobody(store: Accounts, password: str) -> None:
    with pytest.raises(WeakPassword):
        store.add("ann", "user", [], password)
    assert store.list() == ()


def test_names_that_look_alike_cannot_both_be_taken(store: Accounts) -> None:
    store.add("Ann", "user")
    for name in ("Ann", "ann", "ANN"):
        with pytest.raises(AccountExists):
            store.add(name, "device")
    with pytest.raises(UnknownAccount):
        store.get("ann")


@pytest.mark.parametrize("roles", [["a/b"], [""], ["a,b"], [f"r{number}" for number in range(65)]])
def test_roles_that_are_none_change_nothing(store: Accounts, roles: list[str]) -> None:
    store.add("ann", "user", ["a"])
    with pytest.raises(NameRefused):
        store.set_roles("ann", roles)
    with pytest.raises(NameRefused):
        store.add("bob", "user", roles)
    assert store.get("ann").roles == ("a",)
    assert len(store.list()) == 1


def test_an_unknown_kind_is_refused(store: Accounts) -> None:
    with pytest.raises(IdentityError):
        store.add("ann", "root")  # type: ignore[arg-type]


def test_certificates_are_plain_tuples_for_the_engine(store: Accounts) -> None:
    store.add("t7", "device", ["b", "a"])
    store.add_certificate("t7", DIGEST, 1_900_000_000)
    store.add_certificate("t7", DIGEST[::-1], 1)
    assert store.certificates() == (
        (DIGEST, "t7", ("a", "b"), 1_900_000_000),
        (DIGEST[::-1], "t7", ("a", "b"), 1),
    )


def test_a_certificate_proves_one_account_alone(store: Accounts) -> None:
    store.add("a", "device")
    store.add("b", "device")
    store.add_certificate("a", DIGEST, 1)
    for name in ("a", "b"):
        with pytest.raises(AccountExists):
            store.add_certificate(name, DIGEST, 2)
    assert [one.account for one in store.certificates()] == ["a"]


@pytest.mark.parametrize("digest", [b"", DIGEST[:31], DIGEST + b"x"])
def test_a_fingerprint_is_32_bytes(store: Accounts, digest: bytes) -> None:
    store.add("a", "device")
    with pytest.raises(IdentityError, match="32 bytes"):
        store.add_certificate("a", digest, 1)


def test_nothing_of_a_removed_account_stays(store: Accounts) -> None:
    store.add("t7", "device", ["a"], SECRET)
    store.add_certificate("t7", DIGEST, 1)
    store.remove("t7")
    assert store.certificates() == ()
    refused(store, "t7", SECRET)
    again = store.add("t7", "user")
    assert (again.roles, again.certificates, again.has_password) == ((), (), False)
    store.add_certificate("t7", DIGEST, 1)
    store.remove_certificate(DIGEST)
    assert store.certificates() == ()


def test_each_change_raises_the_generation_and_nothing_else_does(store: Accounts) -> None:
    seen = [store.generation]

    def changed() -> bool:
        seen.append(store.generation)
        return seen[-1] == seen[-2] + 1

    store.add("ann", "user", ["a"], SECRET)
    assert changed()
    store.set_roles("ann", ["b"])
    assert changed()
    store.set_password("ann", SECRET + "-new")
    assert changed()
    store.disable("ann")
    assert changed()
    store.enable("ann")
    assert changed()
    store.add_certificate("ann", DIGEST, 1)
    assert changed()
    store.remove_certificate(DIGEST)
    assert changed()
    store.verify("ann", SECRET + "-new")
    refused(store, "ann", "wrong")
    store.list()
    with pytest.raises(AccountExists):
        store.add("ann", "user")
    with pytest.raises(UnknownAccount):
        store.remove("bob")
    assert store.generation == seen[-1]
    store.remove("ann")
    assert changed()


def test_another_process_s_change_is_seen(tmp_path: Path, store: Accounts) -> None:
    before = store.generation
    with Accounts(tmp_path / "accounts.db", cost=CHEAP) as other:
        other.add("ann", "user", [], SECRET)
    assert store.generation == before + 1
    assert store.verify("ann", SECRET)


def stored_hash(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("SELECT password_hash FROM account").fetchone()[0])
    finally:
        connection.close()


def test_a_cheap_hash_is_renewed_at_the_next_login_and_never_made_cheaper(tmp_path: Path) -> None:
    path = tmp_path / "accounts.db"
    with Accounts.create(path, cost=CHEAP) as store:
        store.add("ann", "user", [], SECRET)
    cheap = stored_hash(path)
    with Accounts(path, cost=PasswordCost(time=2, memory_kib=128)) as store:
        generation = store.generation
        refused(store, "ann", "wrong")
        assert stored_hash(path) == cheap
        store.verify("ann", SECRET)
        assert store.generation == generation
        dear = stored_hash(path)
        assert "m=128,t=2" in dear
        store.verify("ann", SECRET)
    with Accounts(path, cost=CHEAP) as store:
        store.verify("ann", SECRET)
    assert stored_hash(path) == dear


def test_cve_2017_9868_the_files_are_private_from_the_first_byte(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Accounts.create(tmp_path / "accounts.db", cost=CHEAP) as store:
            store.add("ann", "user")
            modes = [stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()]
    finally:
        os.umask(before)
    assert len(modes) == 3
    assert set(modes) == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o666, 0o620])
def test_an_exposed_store_is_refused(tmp_path: Path, store: Accounts, mode: int) -> None:
    store.path.chmod(mode)
    with pytest.raises(FileExposed):
        Accounts(tmp_path / "accounts.db")


def test_a_missing_store_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="missing"):
        Accounts(tmp_path / "accounts.db")
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_never_overwritten(tmp_path: Path, store: Accounts) -> None:
    store.add("ann", "user")
    with pytest.raises(IdentityError):
        Accounts.create(tmp_path / "accounts.db")
    assert store.get("ann")


@pytest.mark.parametrize("content", [b"", b"x", b"garbage" * 2_000])
def test_a_damaged_store_is_refused_when_it_is_opened(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "accounts.db"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError):
        Accounts(path)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "accounts.db"
    Accounts.create(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(IdentityError, match="version 2"):
        Accounts(path)


def test_emqx_17674_a_store_that_fails_in_the_middle_lets_nobody_in(store: Accounts) -> None:
    store.add("ann", "user", ["a"], SECRET)
    assert store.verify("ann", SECRET)
    connection = sqlite3.connect(store.path)
    connection.execute("DROP TABLE role")
    connection.close()
    with pytest.raises(IdentityError, match="cannot be read"):
        store.verify("ann", SECRET)
    connection = sqlite3.connect(store.path)
    connection.execute("ALTER TABLE account RENAME TO gone")
    connection.close()
    for name in ("ann", "nobody"):
        with pytest.raises(IdentityError) as caught:
            store.verify(name, SECRET)
        assert not isinstance(caught.value, CredentialsRefused)


def test_cve_2018_12551_a_damaged_hash_in_the_store_proves_nobody(store: Accounts) -> None:
    store.add("ann", "user", ["a"], SECRET)
    for damaged in ("$argon2id$", "$argon2id$v=19$m=64,t=1,p=1$$", "$argon2id$v=19$m=64$x$y"):
        connection = sqlite3.connect(store.path)
        connection.execute("UPDATE account SET password_hash = ?", (damaged,))
        connection.commit()
        connection.close()
        for password in (SECRET, damaged, "x"):
            refused(store, "ann", password)


def test_a_plaintext_password_cannot_be_stored(store: Accounts) -> None:
    store.add("ann", "user", ["a"], SECRET)
    connection = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE account SET password_hash = 'secret'")
    connection.close()
    assert SECRET.encode() not in store.path.read_bytes()


def test_threads_check_and_change_side_by_side(store: Accounts) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                name = f"n{number}-{turn}"
                store.add(name, "user", ["a"], SECRET)
                assert store.verify(name, SECRET).name == name
                refused(store, name, "wrong")
        except BaseException as error:  # noqa: BLE001 - shown by the main thread.
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.list()) == 30
    assert store.generation == 31


def test_threads_that_end_leave_no_connection_behind(store: Accounts) -> None:
    for _ in range(20):
        thread = threading.Thread(target=lambda: store.generation)
        thread.start()
        thread.join()
    assert len(store._open) <= 3


def test_a_closed_store_answers_nobody(store: Accounts) -> None:
    store.add("ann", "user", ["a"], SECRET)
    store.close()
    with pytest.raises(IdentityError, match="closed"):
        store.verify("ann", SECRET)
