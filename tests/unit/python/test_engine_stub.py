"""The stub `_engine.pyi` says what the built module has: every name, parameter and default.

The stub is parsed, the module is looked at; each difference is a failure, in both directions.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import casemate
from casemate import _engine, native

STUB = ast.parse((Path(casemate.__file__).parent / "_engine.pyi").read_text())
# A union of the packet classes, for the type checker only.
ALIASES = {"Packet"}


def declared() -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for statement in STUB.body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            found[statement.targets[0].id] = statement
    return found


def public(of: ModuleType | type) -> set[str]:
    return {name for name in vars(of) if not name.startswith("_")}


def parameters(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """Gives name and kind of each parameter that the stub declares, without self and cls."""
    arguments = function.args
    found = [(one.arg, "positional only") for one in arguments.posonlyargs]
    found += [(one.arg, "positional or keyword") for one in arguments.args]
    found += [(one.arg, "keyword only") for one in arguments.kwonlyargs]
    return [one for one in found if one[0] not in ("self", "cls")]


def built(function: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - any callable of the module.
    return [
        (one.name, one.kind.description.replace("-", " "))
        for one in inspect.signature(function).parameters.values()
        if one.name not in ("self", "cls")
    ]


def defaults(function: ast.FunctionDef) -> dict[str, ast.expr]:
    """Gives the defaults that the stub spells out; `...` is one that it does not."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    behind = positional[len(positional) - len(arguments.defaults) :]
    pairs = [*zip(behind, arguments.defaults, strict=True)]
    pairs += [
        (one, default)
        for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is not None
    ]
    return {one.arg: default for one, default in pairs}


def test_stub_and_module_have_the_same_names() -> None:
    assert set(declared()) - ALIASES == public(_engine)


def test_native_passes_every_name_on_and_nothing_else() -> None:
    assert set(native.__all__) == public(_engine)


@pytest.mark.parametrize(
    "name", [name for name, one in declared().items() if isinstance(one, ast.FunctionDef)]
)
def test_a_function_has_the_parameters_of_its_stub(name: str) -> None:
    stub = declared()[name]
    assert isinstance(stub, ast.FunctionDef)
    compare(stub, getattr(_engine, name))


@pytest.mark.parametrize(
    "name", [name for name, one in declared().items() if isinstance(one, ast.ClassDef)]
)
def test_a_class_has_the_members_of_its_stub(name: str) -> None:
    stub = declared()[name]
    assert isinstance(stub, ast.ClassDef)
    made = getattr(_engine, name)
    members = {one.name: one for one in stub.body if isinstance(one, ast.FunctionDef)}
    construct = members.pop("__new__", None)
    fixed = [one for one in stub.body if isinstance(one, ast.AnnAssign)]
    values = {ast.unparse(one.target) for one in fixed}
    assert set(members) | values == public(made)
    for one in fixed:
        # What the engine has made never changes.
        assert ast.unparse(one.annotation).startswith("Final["), ast.unparse(one)
        assert inspect.isdatadescriptor(vars(made)[ast.unparse(one.target)]), ast.unparse(one)
    if construct is not None:
        compare(construct, made)
    elif not issubclass(made, Exception):
        with pytest.raises(TypeError):
            made()
    for member, function in members.items():
        if any(
            isinstance(one, ast.Name) and one.id == "property" for one in function.decorator_list
        ):
            assert inspect.isdatadescriptor(vars(made)[member]), member
        else:
            compare(function, getattr(made, member))


def compare(stub: ast.FunctionDef, function: Any) -> None:  # noqa: ANN401 - see `built`.
    assert parameters(stub) == built(function), stub.name
    signature = inspect.signature(function)
    spelled = defaults(stub)
    for one in signature.parameters.values():
        if one.name in ("self", "cls"):
            continue
        has_default = one.default is not inspect.Parameter.empty
        assert has_default == (one.name in spelled), f"{stub.name}({one.name})"
        if has_default and one.default is not Ellipsis:
            value = spelled[one.name]
            is_spelled = isinstance(value, ast.Constant) and value.value is not Ellipsis
            if is_spelled:
                assert ast.literal_eval(value) == one.default, f"{stub.name}({one.name})"


def test_every_member_of_the_stub_is_annotated() -> None:
    for node in ast.walk(STUB):
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, node.name
            for one in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
                assert one.arg in ("self", "cls") or one.annotation is not None, node.name


def test_only_native_imports_the_engine() -> None:
    package = Path(casemate.__file__).parent
    importers = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(name.startswith("casemate._engine") for name in names):
                importers.add(file.relative_to(package).as_posix())
    assert importers == {"native.py"}
