"""What the package offers: pinned, documented and typed, so that a change is a decision."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from typing import Any

import pytest

import casemate

OFFERED = {
    "casemate": ["Broker", "Client", "Message", "Will", "__version__"],
    "casemate.broker": [
        "AcceptFailed",
        "AccountGone",
        "Broker",
        "ConnectRefused",
        "Connected",
        "Connecting",
        "Denied",
        "Disconnected",
        "Event",
        "EventStream",
        "LimitReached",
        "Listening",
        "Malformed",
        "Missed",
        "PeerEvent",
        "Problem",
        "Publisher",
        "QueueFull",
        "Reload",
        "SessionChanged",
        "Status",
        "StoreDamaged",
        "StoreFailing",
        "StoreRecovered",
        "StoreStatus",
        "Stranger",
        "Subscriber",
        "ask_to_reload",
        "is_served",
        "reachable",
        "read_status",
        "weakenings",
    ],
    "casemate.client": [
        "BlockingClient",
        "Client",
        "Inbox",
        "Limits",
        "Message",
        "Properties",
        "Subscription",
        "TopicPattern",
        "Will",
        "matches",
        "trust",
    ],
    "casemate.testing": ["Files", "Relay", "ThrowAwayBroker", "ThrowAwayCA"],
}

METHODS = {
    "Broker": [
        "addresses", "blocking", "check", "client", "counters", "cut",
        "drain_s", "events", "events_lost", "home", "is_running", "makes_progress", "on_connect",
        "on_denied", "on_disconnect", "on_event", "on_session", "problems", "publisher",
        "recent_events", "reload", "start", "status", "stop", "subscriber",
    ],
    "BlockingBroker": [
        "addresses", "check", "client", "counters", "cut", "events", "home", "is_running",
        "on_connect", "on_denied", "on_disconnect", "on_event", "on_session", "problems",
        "publisher", "reload", "start", "status", "stop", "subscriber",
    ],
    "Client": [
        "acknowledge", "address", "blocking", "client_id", "close", "connect", "from_url",
        "is_connected", "limits", "messages", "publish", "reply", "request", "session_present",
        "subscribe", "subscription", "unsubscribe", "version", "wait_connected",
        "wait_disconnected",
    ],
    "BlockingClient": [
        "acknowledge", "client_id", "close", "connect", "is_connected", "limits", "publish",
        "reply", "request", "session_present", "subscribe", "subscription", "unsubscribe",
        "wait_connected", "wait_disconnected",
    ],
}  # fmt: skip


@pytest.mark.parametrize("module", OFFERED)
def test_what_a_package_offers_is_pinned(module: str) -> None:
    package = import_module(module)
    assert sorted(package.__all__) == OFFERED[module]
    for name in package.__all__:
        assert hasattr(package, name)


def kind_of(name: str) -> type:
    room = "casemate.broker.blocking" if name == "BlockingBroker" else "casemate"
    room = "casemate.client" if name.endswith("Client") else room
    found: type = getattr(import_module(room), name)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_of_broker_and_client_are_pinned(name: str) -> None:
    assert sorted(one for one in dir(kind_of(name)) if not one.startswith("_")) == METHODS[name]


def test_a_blocking_broker_takes_what_a_broker_takes() -> None:
    broker, blocking = kind_of("Broker"), kind_of("BlockingBroker")
    for name in METHODS["BlockingBroker"]:
        ours, theirs = getattr(blocking, name), getattr(broker, name)
        if inspect.isfunction(ours) and inspect.isfunction(theirs):
            assert inspect.signature(ours).parameters.keys() == (
                inspect.signature(theirs).parameters.keys()
            ), name


def offered() -> list[Any]:
    found = {
        getattr(import_module(module), name)
        for module, names in OFFERED.items()
        for name in names
        if name != "__version__"
    }
    return sorted(found, key=lambda one: str(one.__qualname__))


@pytest.mark.parametrize("one", offered(), ids=lambda one: str(one.__qualname__))
def test_what_is_offered_explains_itself_and_has_types(one: Any) -> None:  # noqa: ANN401
    members = [one]
    if isinstance(one, type):
        for name, member in vars(one).items():
            if not name.startswith("_") or name == "__init__":
                inner = member.fget if isinstance(member, property) else member
                inner = inner.__func__ if isinstance(inner, classmethod) else inner
                if inspect.isfunction(inner):
                    members.append(inner)
    for member in members:
        # A dataclass writes its own; its class explains the arguments.
        if getattr(member, "__module__", "").startswith("casemate"):
            assert inspect.getdoc(member), member
        if inspect.isfunction(member) and member.__name__ != "__init__":
            assert "return" in member.__annotations__, member


def test_the_same_methods_exist_with_and_without_an_event_loop() -> None:
    package = import_module("casemate.client")
    client, blocking = package.Client, package.BlockingClient
    for name in METHODS["BlockingClient"]:
        ours, theirs = vars(blocking)[name], vars(client)[name]
        if inspect.isfunction(ours) and inspect.isfunction(theirs):
            taken = set(inspect.signature(theirs).parameters)
            assert taken <= set(inspect.signature(ours).parameters), name


def test_every_room_can_be_imported_alone() -> None:
    for found in pkgutil.walk_packages(casemate.__path__, "casemate."):
        if not found.name.endswith("._engine"):
            import_module(found.name)
