"""The fixtures that pytest finds by itself: a broker, clients, a relay, a CA, all thrown away.

Nothing else of casemate is loaded before a test asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from casemate.client.blocking import BlockingClient
    from casemate.testing.authority import ThrowAwayCA
    from casemate.testing.broker import ThrowAwayBroker
    from casemate.testing.relay import Relay

SCOPE = "casemate_broker_scope"

Scope = Literal["session", "package", "module", "class", "function"]

_SCOPES = ("session", "package", "module", "class", "function")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `casemate_broker_scope` to pytest's settings."""
    parser.addini(
        SCOPE,
        "how long one casemate_broker serves: session, package, module, class or function",
        default="function",
    )


def _scope(fixture_name: str, config: pytest.Config) -> Scope:
    wanted = config.getini(SCOPE)
    for scope in _SCOPES:
        if wanted == scope:
            return scope  # type: ignore[return-value]
    raise pytest.UsageError(f"{SCOPE} is one of {', '.join(_SCOPES)}, found {wanted!r}")


@pytest.fixture(scope=_scope)
def casemate_broker() -> Iterator[ThrowAwayBroker]:
    """A running broker of its own for each test, or for as long as `casemate_broker_scope` says."""
    from casemate.testing.broker import ThrowAwayBroker

    with ThrowAwayBroker() as broker:
        yield broker


@pytest.fixture
def casemate_client(
    casemate_broker: ThrowAwayBroker,
) -> Iterator[Callable[..., BlockingClient]]:
    """Makes connected clients for tests without an event loop; each is closed at the end.

    Called as `ThrowAwayBroker.client`. In tests with one, `casemate_broker.client` itself is
    used: `async with casemate_broker.client("t7", role="sensor") as client`.
    """
    made: list[BlockingClient] = []

    def make(
        name: str | None = None,
        *,
        role: str = "operator",
        **options: Any,  # noqa: ANN401 - as for Client.
    ) -> BlockingClient:
        client = casemate_broker.client(name, role=role, **options).blocking()
        client.connect()
        made.append(client)
        return client

    try:
        yield make
    finally:
        for client in made:
            client.close()


@pytest.fixture
def casemate_relay(casemate_broker: ThrowAwayBroker) -> Iterator[Relay]:
    """A relay in front of the broker, for `through=`, that cuts, stalls and slows down."""
    with casemate_broker.relay() as relay:
        yield relay


@pytest.fixture(scope="session")
def casemate_ca() -> Iterator[ThrowAwayCA]:
    """An authority that the broker knows nothing of, for servers and clients of a test's own."""
    from casemate.testing.authority import ThrowAwayCA

    with ThrowAwayCA() as authority:
        yield authority
