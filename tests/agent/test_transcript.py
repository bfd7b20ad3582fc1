"""A transcript is private, survives a torn end, and is used by one process at a time."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from segue.agent.toolbox import ToolOutput
from segue.agent.transcript import Transcript, TranscriptError


def begun(path: Path) -> Transcript:
    transcript = Transcript(path, resumes=False)
    transcript.write("started", task="t")
    return transcript


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    transcript = begun(tmp_path / "made" / "t.jsonl")
    assert stat.S_IMODE(transcript.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(transcript.path.parent.stat().st_mode) == 0o700
    assert transcript.path.read_text() == '{"type":"started","version":1,"task":"t"}\n'
    assert transcript.session_path == tmp_path / "made" / "t.session.json"
    transcript.close()


def test_calls_of_the_last_turn_are_known(tmp_path: Path) -> None:
    """At once, and when it is opened again."""
    transcript = begun(tmp_path / "t")
    for line in ("1", "2"):
        transcript.write("call_started", call_id=line)
    transcript.write("call_finished", call_id="1", output="early")
    transcript.write("turn", number=2, status="incomplete")
    transcript.write("call_started", call_id="3")
    transcript.write("call_started", call_id="4")
    transcript.write("call_finished", call_id="3", output="error: x", failed=True)
    expected = ({"3", "4"}, {"3": ToolOutput("error: x", failed=True)})
    assert (transcript.begun, transcript.outputs) == expected
    transcript.close()
    again = Transcript(tmp_path / "t", resumes=True)
    assert (again.begun, again.outputs, again.status) == (*expected, "incomplete")
    again.close()


def test_a_torn_last_line_is_taken_away(tmp_path: Path) -> None:
    """The process was killed while it wrote."""
    transcript = begun(tmp_path / "t")
    whole = transcript.path.read_bytes()
    transcript.path.write_bytes(whole + b'{"type":"call_sta')
    transcript.close()
    again = Transcript(tmp_path / "t", resumes=True)
    again.write("resumed")
    again.close()
    assert again.path.read_bytes() == whole + b'{"type":"resumed"}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not the transcript of an agent"),
        ("{", "not the transcript of an agent"),
        ("hello\n", "line 1 cannot be read"),
        ('{"type":"started","version":2}\n', "not a transcript of version 1"),
        ('{"type":"turn"}\n', "not a transcript of version 1"),
        ('{"type":"started","version":1}\n[]\n', "line 2 cannot be read"),
    ],
)
def test_what_is_no_transcript_is_left_alone(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(TranscriptError, match=words):
        Transcript(path, resumes=True)
    assert path.read_text() == text


def test_two_agents_do_not_share_one(tmp_path: Path) -> None:
    transcript = begun(tmp_path / "t")
    with pytest.raises(TranscriptError, match="another agent is running"):
        Transcript(tmp_path / "t", resumes=True)
    with pytest.raises(TranscriptError, match="file exists"):
        Transcript(tmp_path / "t", resumes=False)
    transcript.close()
    with pytest.raises(TranscriptError, match="no such file"):
        Transcript(tmp_path / "none", resumes=True)
