"""A result file is read as it was written, and what is none is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segue.bench.reports import result_file
from segue.bench.reports.report import TurnFigures, arm, figure, make_report, write
from segue.bench.reports.result_file import ResultFileError, read_results

ROOT = Path(__file__).resolve().parents[3]
LISTS = {"agent-tasks.json", "real-agents.json"}  # of other tools


def test_reads_what_was_written(tmp_path: Path) -> None:
    report = make_report([arm("a", [TurnFigures(time_s=1.0)])], {"rounds": 1}, [figure("cost", [1.0], "ms")])
    write(report, tmp_path / "a.json")
    assert read_results(tmp_path / "a.json") == report


def test_reads_an_arm_that_was_written_before_arms_had_links(tmp_path: Path) -> None:
    machine = b'"machine":{"cpu":"x","cores":2,"python":"3.11","platform":"Linux"},"version":"0.1.0","commit":null'
    turn = b'{"bytes_up_wire":5}'
    arms = b'[{"name":"raw","status":"completed","turns":[%b],"totals":%b}]' % (turn, turn)
    (tmp_path / "a.json").write_bytes(b'{%b,"settings":{},"arms":%b}' % (machine, arms))
    assert read_results(tmp_path / "a.json").arms == [arm("raw", [TurnFigures(bytes_up_wire=5)])]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda path: path.name)
def test_reads_every_file_of_the_documentation(path: Path) -> None:
    if path.name in LISTS:
        with pytest.raises(ResultFileError):
            read_results(path)
    else:
        assert read_results(path).version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no result file"),
        (b"[]", "Expected `object`"),
        (b"{}", "machine"),
        (b"\xff\xfe", "no result file"),
        (b'{"machine": "\xff"}', "no result file"),
        (b"[" * 100_000, "no result file"),
        (b'{"machine": 1, "version": "1"}', "machine"),
    ],
)
def test_refuses_what_is_no_result_file(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ResultFileError, match=r"a\.json") as refused:
        read_results(tmp_path / "a.json")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match="No such file"):
        read_results(tmp_path / "none.json")
    with pytest.raises(ResultFileError, match="Is a directory"):
        read_results(tmp_path)


def test_refuses_a_huge_file_before_it_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_file, "_MAX_BYTES", 2**20)
    with (tmp_path / "a.json").open("wb") as file:
        os.truncate(file.fileno(), 2**20 + 1)
    with pytest.raises(ResultFileError, match="more than 1 MiB"):
        read_results(tmp_path / "a.json")
