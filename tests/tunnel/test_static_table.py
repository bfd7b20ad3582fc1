"""The static header table: the lines of the specification, none of them twice, in half of a table at most."""

from __future__ import annotations

import json
from pathlib import Path

from segue.tunnel import static_table
from segue.tunnel.header_table import MAX_LINE_BYTES, MAX_LINES


def test_the_preset_lines_are_those_of_the_specification() -> None:
    text = (Path(__file__).parents[2] / "docs" / "spec" / "tunnel.md").read_text()
    for lines in (static_table.REQUEST, static_table.REPLY):
        assert "```text\n" + "\n".join(line.decode() for line in lines) + "\n```" in text
        assert len(set(lines)) == len(lines) < MAX_LINES // 2


def test_the_file_of_preset_lines_has_the_same() -> None:
    lines = json.loads((Path(__file__).parent / "vectors" / "preset-lines.json").read_text())
    assert [line.encode() for line in lines["requests"]] == list(static_table.REQUEST)
    assert [line.encode() for line in lines["replies"]] == list(static_table.REPLY)


def test_every_line_is_as_a_table_keeps_it() -> None:
    assert static_table.REPLY[0] == b"200 OK"  # the first line of a head has no colon
    for line in (*static_table.REQUEST, *static_table.REPLY[1:]):
        name, colon, value = line.partition(b":")
        assert (bool(name), colon, value) == (True, b":", value.strip()), line
        assert len(line) <= MAX_LINE_BYTES
