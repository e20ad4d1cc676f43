"""What each public module offers, pinned: a name more or less is a decision, and says so here.

`test_exports` pins those that most programs import; here are the others, and methods of both.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest

import casemate
from casemate import errors
from tests.unit.python.test_exports import OFFERED

ROOMS = {
    "casemate.config": [
        "Configuration",
        "FILE_NAME",
        "Limits",
        "Listener",
        "Log",
        "REASON_CHARACTERS_MAX",
        "REASON_CHARACTERS_MIN",
        "Reading",
        "SERVER_CERTIFICATE",
        "SERVER_KEY",
        "SOCKETS_PATH_BYTES_MAX",
        "Setting",
        "Source",
        "Store",
        "WS_PATH",
        "default_text",
        "load",
        "parse",
        "read",
        "schema_text",
        "weakenings",
    ],
}

ERRORS = [
    "AccountExists",
    "AuthorityDamaged",
    "AuthorityExpired",
    "AuthorityLocked",
    "BrokerError",
    "BrokerStopped",
    "CasemateError",
    "ClientError",
    "ClockWrong",
    "ConfigurationError",
    "ConnectRefused",
    "ConnectionLost",
    "CredentialsRefused",
    "DeadlinePassed",
    "EngineFailed",
    "FileExposed",
    "HomeError",
    "HomeExists",
    "HomeMissing",
    "IdentityError",
    "IdentityMissing",
    "LifetimeRefused",
    "NameRefused",
    "NotConnected",
    "PkiError",
    "PolicyError",
    "PortInUse",
    "ProtocolViolation",
    "Refused",
    "StoreError",
    "StoreInUse",
    "UnknownAccount",
    "UnknownRole",
    "Unreachable",
    "Untrusted",
    "WeakPassword",
]

METHODS = {
    "casemate.broker.Broker": [
        "addresses",
        "blocking",
        "check",
        "client",
        "counters",
        "cut",
        "drain_s",
        "events_lost",
        "home",
        "is_running",
        "makes_progress",
        "problems",
        "publisher",
        "recent_events",
        "reload",
        "start",
        "status",
        "stop",
        "subscriber",
    ],
    "casemate.broker.observed.Observed": [
        "events",
        "on_connect",
        "on_denied",
        "on_disconnect",
        "on_event",
        "on_session",
    ],
    "casemate.broker.blocking.BlockingBroker": [
        "addresses",
        "check",
        "client",
        "counters",
        "cut",
        "events",
        "home",
        "is_running",
        "on_connect",
        "on_denied",
        "on_disconnect",
        "on_event",
        "on_session",
        "problems",
        "publisher",
        "reload",
        "start",
        "status",
        "stop",
        "subscriber",
    ],
    "casemate.broker.Publisher": [
        "close",
        "publish",
        "publish_now",
    ],
    "casemate.broker.Subscriber": [
        "batches",
        "close",
    ],
    "casemate.broker.EventStream": [
        "close",
        "wake",
    ],
    "casemate.testing.ThrowAwayBroker": [
        "add_user",
        "ca_file",
        "client",
        "identity",
        "listening",
        "relay",
        "set_policy",
        "start",
        "stop",
    ],
    "casemate.testing.Relay": [
        "connections",
        "cut",
        "refuse",
        "restore",
        "slow",
        "stall",
        "start",
        "stop",
    ],
    "casemate.testing.ThrowAwayCA": [
        "client",
        "close",
        "server",
    ],
}


def offered() -> dict[str, list[str]]:
    """Gives the names of every public module."""
    return {**OFFERED, **ROOMS, "casemate.errors": ERRORS}


def names(module: ModuleType) -> list[str]:
    """Gives what a module offers: what it says, or else the classes that are its own."""
    said = getattr(module, "__all__", None)
    if said is not None:
        return sorted(said)
    own = [one for one in vars(module).values() if isinstance(one, type)]
    return sorted(
        one.__name__
        for one in own
        if one.__module__ == module.__name__ and not one.__name__.startswith("_")
    )


@pytest.mark.parametrize("module", offered())
def test_what_a_module_offers_is_pinned(module: str) -> None:
    assert names(import_module(module)) == sorted(offered()[module])


@pytest.mark.parametrize("kind", METHODS)
def test_the_methods_of_a_class_are_pinned(kind: str) -> None:
    module, _, name = kind.rpartition(".")
    found = vars(getattr(import_module(module), name))
    assert sorted(one for one in found if not one.startswith("_")) == METHODS[kind]


def test_every_error_is_one_of_ours() -> None:
    for name in ERRORS:
        assert issubclass(getattr(errors, name), errors.CasemateError)


@pytest.mark.parametrize("module", ["casemate", "casemate.testing"])
def test_what_is_loaded_late_is_listed_and_what_is_not_offered_is_refused(module: str) -> None:
    package = import_module(module)
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match=r"has no attribute 'Brokr'"):
        package.Brokr  # noqa: B018 - asking is what is tested.


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert casemate.__version__ == version("casemate")
