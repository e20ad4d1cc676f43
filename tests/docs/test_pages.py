"""The pages build without a warning, show every public name, and need nothing from elsewhere.

A warning is an error here as in `make docs`: a link that leads nowhere, a page that no table of
contents names, a docstring that does not parse.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

from casemate import native
from casemate.config import shape
from docs.generate import commands, events, fixtures, reasons, stub, topics
from tests.unit.python.test_public_exports import offered

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

PATIENCE_S = 600
"""A build takes ten seconds; on a machine that builds and simulates beside it, minutes."""

pytestmark = pytest.mark.timeout(PATIENCE_S + 60)

NAMES = [
    f"{module}.{name}"
    for module, names in offered().items()
    for name in names
    # Its four classes are those of other modules, to which its page leads.
    if module != "casemate" or name == "__version__"
]
LOADED = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"([^\"]*)\"")
IMPORTED = re.compile(r"(?:@import|url\()\s*[\"']?([^\"')]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", DOCS, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def shown(site: Path) -> dict[str, set[str]]:
    """Gives what can be looked up on the pages, by its kind."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {kind: set(inventory.data[kind]) for kind in inventory.data}


def test_each_public_name_has_its_entry(shown: dict[str, set[str]]) -> None:
    known = {name for kind, names in shown.items() if kind.startswith("py:") for name in names}
    assert set(NAMES) - known == set()


def test_each_public_method_has_its_entry(shown: dict[str, set[str]]) -> None:
    known = {name for kind, names in shown.items() if kind.startswith("py:") for name in names}
    missing = []
    for name in NAMES:
        module, _, own = name.rpartition(".")
        kind = getattr(import_module(module), own)
        if not inspect.isclass(kind):
            continue
        for member, value in vars(kind).items():
            is_method = callable(value) or isinstance(value, property | classmethod | staticmethod)
            if is_method and not member.startswith("_") and f"{name}.{member}" not in known:
                missing.append(f"{name}.{member}")
    assert missing == []


def test_each_option_has_its_entry(shown: dict[str, set[str]]) -> None:
    options = {f"{one.section}.{one.name}".lstrip(".") for one in shape.options()}
    assert shown["std:confval"] == options


def test_each_command_has_its_section(site: Path) -> None:
    page = (site / "reference/command-line.html").read_text(encoding="utf-8")
    assert len(commands.names()) > 20
    for name in commands.names():
        assert f"{name}<a class=" in page, name
    # Two hyphens stay two: an option that was made a dash cannot be typed.
    assert not re.search(r"–[a-z]", page)


def test_each_option_of_a_command_has_its_entry(shown: dict[str, set[str]]) -> None:
    entries = shown["std:cmdoption"]
    assert {"casemate-pub.--qos", "casemate-pub.-q", "casemate-device-add.--role"} <= entries


def test_each_topic_event_reason_fixture_and_value_is_on_its_page(site: Path) -> None:
    def page(name: str) -> str:
        return (site / f"reference/{name}.html").read_text(encoding="utf-8")

    found = page("topics")
    for topic in topics.explained():
        assert topic in re.sub(r"</?span[^>]*>", "", found), topic
    found = page("events")
    for event in [*events.told_by_engine(), *events.told_by_log()]:
        assert f">{event}<" in found, event
    found = page("reasons")
    for code in reasons.codes():
        assert f"0x{code:02X}" in found
    for said in reasons.words().values():
        assert said in found
    for fixture in fixtures.found():
        assert f'id="{fixture.name}"' in page("testing")
    for kind in stub.SHOWN:
        for member in vars(getattr(native, kind)):
            if not member.startswith("_"):
                assert f'id="casemate.native.{kind}.{member}"' in page("native"), member


def test_the_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > 60
    for page in pages:
        for target in LOADED.findall(page.read_text(encoding="utf-8")):
            assert not re.match(r"[a-z]+:|//", target), f"{page.name} loads {target}"
    for style in styles:
        for target in IMPORTED.findall(style.read_text(encoding="utf-8")):
            assert not re.match(r"(?!data:)[a-z]+:|//", target), f"{style.name} loads {target}"


def test_each_page_is_on_the_site(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).exists(), page


def test_an_event_that_nobody_explains_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(events.ENGINE, "overflow")
    with pytest.raises(ValueError, match="overflow"):
        events.text()


def test_a_topic_that_nobody_explains_stops_the_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guide = tmp_path / "status.md"
    kept = topics.GUIDE.read_text(encoding="utf-8").replace("$SYS/broker/uptime", "$SYS/broker/up")
    guide.write_text(kept, encoding="utf-8")
    monkeypatch.setattr(topics, "GUIDE", guide)
    with pytest.raises(ValueError, match=r"broker/up'.*broker/uptime"):
        topics.text()


def test_a_kind_of_option_that_the_reference_has_no_words_for_stops_the_build() -> None:
    from docs.generate import configuration

    with pytest.raises(ValueError, match="no words"):
        configuration._type({"type": "object"})
