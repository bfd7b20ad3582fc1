"""The picture of the packages has each of them once, above what it imports."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tools.architecture import ROOT, draw, package_imports, picture, reduced, rows_of
from tools.data_paths import Opening, local_turn, record, tunnelled_request, websocket_turn

IMPORTS = {
    "app": {"core", "codec", "wire"},
    "core": {"codec"},
    "codec": {"wire"},
    "wire": set[str](),
    "alone": {"wire"},
}
SVG = "{http://www.w3.org/2000/svg}"


def test_an_import_that_others_imply_is_left_out() -> None:
    assert reduced(IMPORTS) == IMPORTS | {"app": {"core"}}


def test_a_package_stands_just_above_what_it_imports() -> None:
    assert rows_of(IMPORTS) == [["app"], ["core"], ["alone", "codec"], ["wire"]]


def test_a_box_for_each_package_and_an_arrow_for_each_import() -> None:
    drawn = ET.fromstring(draw(IMPORTS, dict.fromkeys(IMPORTS, ("a <", "b"))))  # noqa: S314 - text of our own making
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert [text for text in texts if text in IMPORTS] == ["app", "core", "alone", "codec", "wire"]
    assert len(list(drawn.iter(f"{SVG}path"))) == 1 + 4, "the tip of an arrow, and the arrows"


def test_the_project_can_be_drawn() -> None:
    names = {text.text for text in ET.fromstring(picture()).iter(f"{SVG}text")}  # noqa: S314 - text of our own making
    assert set(package_imports()) <= names


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "explanation" / "architecture.md").read_text("utf-8")
SECTIONS = dict(section.split("\n", 1) for section in PAGE.split("\n## ")[1:])


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", PAGE))))
def test_every_place_that_the_page_names_exists(place: str) -> None:
    root = ROOT if place.startswith("tests/") else ROOT / "src" / "segue"
    assert (root / place).exists()


@pytest.mark.parametrize(
    ("section", "opening"),
    [
        ("A turn over WebSocket", websocket_turn),
        ("A request through the tunnel", tunnelled_request),
        pytest.param("A turn of the local model", local_turn, marks=pytest.mark.local_engine),
    ],
)
async def test_requests_pass_the_files_that_the_page_lists(section: str, opening: Opening) -> None:
    rows = [line for line in SECTIONS[section].splitlines() if re.match(r"\| \d+ \|", line)]
    listed = re.findall(r"`([a-z_/]+)\.py`", "".join(row.split("|")[2] for row in rows))
    passed = (await record(section, opening)).files
    assert [name for name in listed if f"segue.{name.replace('/', '.')}" not in passed] == []
