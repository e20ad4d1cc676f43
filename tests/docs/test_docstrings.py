"""What is offered explains itself: every argument, every attribute, an example; and examples run.

A fenced block of Python in a docstring is an example, as `example` runs them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from pydantic import BaseModel

from casemate import errors
from casemate.broker import Event
from tests.docs import example
from tests.unit.python.test_public_exports import offered

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LIKE = re.compile(r"\b[Aa]s (?:of |for )?`[\w.]+`|as of the class before")
"""Explained elsewhere, and said where."""


HANDED_OUT = (
    "casemate.broker.blocking.BlockingBroker",
    "casemate.broker.inside.BlockingSubscriber",
    "casemate.broker.observed.Observed",
    "casemate.broker.stream.BlockingEvents",
    "casemate.client.blocking.BlockingMessages",
)
"""What programs meet without importing it: from methods, and as the class before."""


def functions(kind: type) -> Iterator[tuple[str, FunctionType]]:
    """Yields the public functions of a class, and the one that makes its values."""
    for name, member in vars(kind).items():
        inner = member.fget if isinstance(member, property) else member
        inner = getattr(inner, "__func__", inner)
        inner = getattr(inner, "__wrapped__", inner)
        is_own = isinstance(inner, FunctionType) and inner.__module__.startswith("casemate")
        if is_own and (name == "__init__" or not name.startswith("_")):
            yield name, inner


def documented() -> dict[str, Any]:
    """Gives everything that is offered, with what it consists of, by its name."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    names = [f"{module}.{name}" for module, names in offered().items() for name in names]
    for name in [*names, *HANDED_OUT]:
        module, _, own = name.rpartition(".")
        one = getattr(import_module(module), own)
        if id(one) in seen or not isinstance(one, type | FunctionType):
            continue
        seen.add(id(one))
        found[name] = one
        if isinstance(one, type):
            found.update((f"{name}.{inner}", function) for inner, function in functions(one))
    return found


THINGS = documented()
FUNCTIONS = {name: one for name, one in THINGS.items() if isinstance(one, FunctionType)}
CLASSES = {name: one for name, one in THINGS.items() if isinstance(one, type)}


def examples() -> Iterator[tuple[str, str]]:
    """Yields each example, with where it stands."""
    modules = {inspect.getmodule(one) for one in THINGS.values()}
    modules |= {import_module(module) for module in offered()}
    things = {**THINGS, **{f"module {one.__name__}": one for one in modules if one}}
    for name, one in sorted(things.items()):
        for number, (_, language, code) in enumerate(FENCE.findall(inspect.getdoc(one) or ""), 1):
            if language == "python":
                yield f"{name} {number}", textwrap.dedent(code)


EXAMPLES = list(examples())


@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_each_example_does_what_it_says(name: str, code: str, tmp_path: Path) -> None:
    example.run(code, name, tmp_path)


@pytest.mark.parametrize("name", THINGS)
def test_each_thing_has_a_first_sentence(name: str) -> None:
    first = (inspect.getdoc(THINGS[name]) or "").partition("\n")[0]
    assert re.match(r"[A-Z0-9`].*[.:]$|casemate: .*\.$", first), first


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_argument_is_explained(name: str) -> None:
    function = FUNCTIONS[name]
    said = inspect.getdoc(function) or ""
    if name.endswith(".__init__"):
        # An error is made by its class, which says what it takes.
        said += inspect.getdoc(THINGS[name.removesuffix(".__init__")]) or ""
        if "__dataclass_fields__" in vars(THINGS[name.removesuffix(".__init__")]):
            return
    taken = [one for one in inspect.signature(function).parameters if one not in ("self", "cls")]
    missing = [one for one in taken if not re.search(rf"^    {one}: ", said, re.MULTILINE)]
    assert not missing or LIKE.search(said), f"{name} does not explain {missing}"


@pytest.mark.parametrize("name", CLASSES)
def test_each_attribute_is_explained(name: str) -> None:
    kind = CLASSES[name]
    fields: list[str] = []
    if dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel):
        # What comes from the class before is explained there.
        fields = list(inspect.get_annotations(kind))
    said = (inspect.getdoc(kind) or "").partition("Attributes:")[2]
    for field in fields:
        assert field.startswith("_") or re.search(rf"^    {field}: ", said, re.MULTILINE), field


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, one in THINGS.items()
        # Errors have one example for all, and so have events: they come alike.
        if name.rpartition(".")[0] in offered()
        and isinstance(one, type | FunctionType)
        and one.__module__ != errors.__name__
        and not issubclass(one if isinstance(one, type) else object, Event)
    ],
)
def test_each_public_name_stands_in_an_example(name: str) -> None:
    own = name.rpartition(".")[2]
    assert any(
        re.search(rf"\b{own}\b", code) or where.startswith(f"{name} ") for where, code in EXAMPLES
    ), f"{name} stands in no example"


def test_every_block_of_a_docstring_says_what_it_is() -> None:
    """A block without a language would be an example that nobody runs."""
    for name, one in THINGS.items():
        for _, language, code in FENCE.findall(inspect.getdoc(one) or ""):
            assert language == "python" or "──" in code, f"{name}: {code[:60]}"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(1)  # 2", "says '2' and prints '1'"),
        ("print(1)", "says nothing"),
        ("print(1)  # 1\nprint(2)", "prints .*'1', '2'"),
        ("def test_x():\n    assert False", "1 failed"),
    ],
)
def test_an_example_that_says_what_is_not_so_fails(code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        example.run(code, "it", tmp_path)


def test_an_example_may_wait_at_the_top_and_leave_out_what_differs(tmp_path: Path) -> None:
    code = "import asyncio\nawait asyncio.sleep(0)\nprint(f'at {id(code)}')  # at …\n"
    example.run(code.replace("id(code)", "id(asyncio)"), "it", tmp_path)
