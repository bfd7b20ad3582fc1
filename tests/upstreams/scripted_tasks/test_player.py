"""The scripted model reads a conversation: its next answer is a function of it, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.agent.tasks import make_task, task_prompt
from segue.upstreams.scripted_tasks import SCRIPTS, Answered, Called, Said, next_answer
from tests.agent_tools import Played, play

TASK = "mend-a-failing-build"
STUCK = "I stop here, and the task is not done. "


@pytest.fixture(name="played", scope="module")
def play_the_build(tmp_path_factory: pytest.TempPathFactory) -> Played:
    workspace = tmp_path_factory.mktemp("build")
    make_task(TASK, workspace)
    return play(workspace, task_prompt(TASK))


def said(*conversation: Said | Called | Answered) -> str:
    """Return the text of the next answer, which makes no calls."""
    answer = next_answer(conversation)
    assert answer is not None
    assert answer.calls == ()
    return answer.text


@pytest.mark.parametrize(
    "first", ["", "hi", "segue-task: nothing", "about segue-task: mend-a-failing-build", "segue-task:"]
)
def test_a_conversation_without_a_marker_is_about_no_task(first: str) -> None:
    assert next_answer([Said(first), Said(task_prompt(TASK))]) is None
    assert next_answer([]) is None


def test_the_marker_may_stand_in_any_line_of_the_first_message() -> None:
    for text in (f"segue-task: {TASK}", f"Please:\r\n  segue-task: {TASK}  \r\nThank you."):
        answer = next_answer([Said(text)])
        assert answer is not None
        assert [call.call_id for call in answer.calls] == [
            "call_task_mend_a_failing_build_01_1",
            "call_task_mend_a_failing_build_01_2",
        ]


def test_ids_are_short_enough_for_every_api_and_never_repeat(played: Played) -> None:
    ids = [entry.call_id for entry in played.conversation if isinstance(entry, Called)]
    assert len(set(ids)) == len(ids)
    longest = max(f"call_task_{task}_00_0" for task in SCRIPTS)
    assert len(longest) <= 40


def test_the_same_conversation_gets_the_same_answer(played: Played) -> None:
    for end in range(1, len(played.conversation) + 1):
        assert next_answer(played.conversation[:end]) == next_answer(list(played.conversation[:end]))


def test_the_order_of_parallel_answers_does_not_matter(played: Played) -> None:
    task, run, listed, ran, tree = played.conversation[:5]
    assert next_answer([task, run, listed, tree, ran]) == next_answer([task, run, listed, ran, tree])


def test_what_the_user_says_later_changes_nothing(played: Played) -> None:
    assert said(*played.conversation, Said("Thank you")) == played.text


def test_a_call_without_an_answer_is_said(played: Played) -> None:
    assert said(*played.conversation[:-1]) == f"{STUCK}My call of the tool run has no answer."


def test_a_part_of_parallel_calls_is_said(played: Played) -> None:
    assert said(*played.conversation[:2]) == f"{STUCK}I made 2 calls at once, and the conversation holds 1 of them."


@pytest.mark.parametrize(
    "call",
    [
        Called("c", "write", '{"command":"python3 build.py","time_limit_s":null}'),
        Called("c", "run", '{"command":"rm -r .","time_limit_s":null}'),
        Called("c", "run", "{"),
    ],
)
def test_a_call_that_it_did_not_make_is_said(played: Played, call: Called) -> None:
    text = said(played.conversation[0], call, *played.conversation[2:])
    assert text == f"{STUCK}The conversation holds a call of the tool {call.name} that I did not make."


def test_arguments_may_be_written_in_another_way(played: Played) -> None:
    """An upstream whose API has objects for arguments writes them anew."""
    call = Called("c1", "run", '{ "time_limit_s": null, "command": "python3 build.py" }')
    task, _, listed, ran, tree = played.conversation[:5]
    assert isinstance(ran, Answered)
    answer = next_answer([task, call, listed, Answered("c1", ran.text), tree])
    assert answer == next_answer(played.conversation[:5])


@pytest.mark.parametrize("wrong", ["", "error: no such file", "something else", "[exit status 0]\nbuilt 5 pages"])
def test_every_answer_counts(wrong: str, played: Played) -> None:
    """Whichever answer is wrong, the model ends without success; edits and writes need only not fail."""
    for place, entry in enumerate(played.conversation):
        if isinstance(entry, Answered):
            call = next(c for c in played.conversation if isinstance(c, Called) and c.call_id == entry.call_id)
            if call.name in {"edit", "write"} and not wrong.startswith("error:"):
                continue
            if wrong.endswith("5 pages") and place == len(played.conversation) - 1:
                continue
            text = said(*played.conversation[:place], Answered(entry.call_id, wrong), *played.conversation[place + 1 :])
            assert text.startswith(STUCK), (call, text)


_PIECES = ("", "\n", "  ", "exit status 0", "error: ", "9" * 30, "a.py:1: x", "'", "$file", "${", "\\1", "]", "\u00df")


@given(st.data())
def test_whatever_the_tools_answer_it_gives_one_answer(played: Played, data: st.DataObject) -> None:
    """It neither fails nor goes on where the conversation is not its own."""
    conversation = list(played.conversation)
    places = [place for place, entry in enumerate(conversation) if isinstance(entry, Answered)]
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        entry = conversation[place]
        assert isinstance(entry, Answered)
        at = data.draw(st.integers(0, len(entry.text)))
        text = entry.text[:at] + "".join(data.draw(st.lists(st.sampled_from(_PIECES), max_size=3)))
        conversation[place] = Answered(entry.call_id, text + entry.text[data.draw(st.integers(at, len(entry.text))) :])
    answer = next_answer(conversation)
    assert answer is not None
    assert answer.calls == ()


def test_it_takes_what_it_does_from_the_answers(tmp_path: Path) -> None:
    """With another name in the error, it edits another text."""
    make_task(TASK, tmp_path)
    template = tmp_path / "templates" / "page.html"
    template.write_text(template.read_text(encoding="utf-8").replace("autor", "writer"), encoding="utf-8")
    played = play(tmp_path, task_prompt(TASK))
    assert "`writer` for `author`" in played.text
    edits = [entry.arguments for entry in played.conversation if isinstance(entry, Called) and entry.name == "edit"]
    assert '"old":"{{ writer }}"' in edits[-1]
