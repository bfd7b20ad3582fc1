"""A message, or a page, never tells anybody to fetch segue by its name from an index, which does not have it."""

from __future__ import annotations

import re
from pathlib import Path

from segue.extras import how_to_add

ROOT = Path(__file__).resolve().parents[1]
#: `pip install segue`, 'segue[local]', `uvx segue`: as a tool would look it up on an index.
_BY_NAME = re.compile(
    r"(?:(?:pip|pipx|uv tool|uv pip) install|uv add|uvx|pipx run)[^\n`]*?[ '\"]segue(?:\[|==|>=|[ '\"`]|$)"
    r"|(?<![./\w])segue\[",
    re.MULTILINE,
)


def test_it_names_the_extra_and_where_segue_comes_from() -> None:
    assert how_to_add("cluster") == (
        "install segue with its extra cluster, from where you have segue: '.[cluster]' in a checkout, or "
        "'./FILE.whl[cluster]'"
    )


def test_nobody_is_told_to_install_it_by_name() -> None:
    texts = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    texts += [file for file in (ROOT / "deploy").rglob("*") if file.is_file()]
    found = {str(file.relative_to(ROOT)): told for file in texts if (told := _BY_NAME.findall(file.read_text("utf-8")))}
    assert found == {}
    for wrong in ("pip install 'segue[local]'", "uvx --from segue segue run", "pipx install segue", "uv add segue"):
        assert _BY_NAME.search(wrong), wrong
