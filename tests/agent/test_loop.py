"""The loop carries out what a model calls, ends in one clear way, and runs nothing twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segue.agent.loop import MAX_CALLS, AgentLoop
from segue.agent.progress import AgentTurn, RunLimits, RunObserver, RunResult
from segue.agent.toolbox import Toolbox, ToolOutput
from segue.agent.transcript import Transcript
from segue.agent.workspace import Workspace
from segue.client.errors import (
    ConnectionFailedError,
    CreateRefusedError,
    OutcomeUnknownError,
    ResponseFailedError,
    SessionFileError,
)
from segue.client.function_calls import FunctionCall
from tests.agent.scripted_session import Answer, ScriptedSession, call


class Seen(RunObserver):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.call_has_started = asyncio.Event()

    def turn_started(self, number: int) -> None:
        super().turn_started(number)
        self.lines.append(f"turn {number}")

    def text_written(self, delta: str) -> None:
        super().text_written(delta)
        self.lines.append(delta)

    def turn_finished(self, turn: AgentTurn) -> None:
        super().turn_finished(turn)
        self.lines.append(f"{turn.tool_calls} calls")

    def call_started(self, call: FunctionCall) -> None:
        super().call_started(call)
        self.lines.append(f"+{call.name}")
        self.call_has_started.set()

    def call_finished(self, call: FunctionCall, output: ToolOutput) -> None:
        super().call_finished(call, output)
        self.lines.append(f"-{call.name}")


class Run:
    """One run of a script in a folder; `again` is the next process, with the session as it was saved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "workspace"
        self.folder.mkdir()
        self.path = folder / "transcript.jsonl"
        self.seen = Seen()
        self.commands: list[str] = []
        self.sleeps = asyncio.Event()
        self.transcript = Transcript(self.path, resumes=False)
        self.transcript.write("started", task="the task")
        self.loop: AgentLoop | None = None

    async def approve(self, command: str) -> None:
        self.commands.append(command)
        if command.startswith("sleep"):
            self.sleeps.set()

    async def play(self, session: ScriptedSession, **limits: Any) -> RunResult:  # noqa: ANN401 - of each kind
        toolbox = Toolbox(Workspace(self.folder), environment={"PATH": os.environ["PATH"]}, approval=self.approve)
        self.loop = AgentLoop(
            session.as_session(), toolbox, transcript=self.transcript, limits=RunLimits(**limits), observer=self.seen
        )
        return await self.loop.run("the task")

    def again(self) -> None:
        self.transcript.close()
        self.transcript = Transcript(self.path, resumes=True)
        self.commands.clear()

    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.path.read_bytes().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.transcript.close()


async def test_it_calls_tools_until_there_is_nothing_to_call(run: Run) -> None:
    session = ScriptedSession(
        [
            Answer(calls=(call("1", "write", path="a", text="x"), call("2", "read", path="a"))),
            Answer(text="Trying. ", calls=(call("3", "run", command="cat a; exit 1"), call("4", "open"))),
            Answer(text="Done."),
        ]
    )
    result = await run.play(session)
    assert (result.ending, result.text, result.reason, len(result.turns)) == ("completed", "Done.", "", 3)
    answer = {"type": "function_call_output"}
    assert session.sent == [
        [{"type": "message", "role": "user", "content": "the task"}],
        [{**answer, "call_id": "1", "output": "wrote 1 bytes"}, {**answer, "call_id": "2", "output": "x"}],
        [
            {**answer, "call_id": "3", "output": "exit status: 1\nx"},
            {
                **answer,
                "call_id": "4",
                "output": "error: there is no tool 'open'; there are list, read, search, edit, write, run",
            },
        ],
    ]
    first = ["turn 1", "2 calls", "+write", "-write", "+read", "-read"]
    assert run.seen.lines[:14] == [*first, "turn 2", "Trying. ", "2 calls", "+run", "-run", "+open", "-open", "turn 3"]
    assert [line["type"] for line in run.lines()] == [
        "started", "turn", *["call_started", "call_finished"] * 2, "turn", *["call_started", "call_finished"] * 2,
        "turn", "ended",
    ]  # fmt: skip
    assert session.saved == [0, 3, 8, 11], "first, and after each turn"


async def test_the_figures_of_a_turn(run: Run) -> None:
    session = ScriptedSession([Answer(text="x", calls=(call("1", "list"),)), Answer(error=None)])
    turn, last = (await run.play(session)).turns
    assert turn == AgentTurn(
        bytes_up_payload=60,
        bytes_up_wire=160,
        bytes_down_wire=1,
        ttft_s=turn.ttft_s,
        time_s=turn.time_s,
        input_tokens=10,
        cached_tokens=2,
        output_tokens=1,
        tool_calls=1,
    )
    assert turn.ttft_s is not None
    assert 0 < turn.ttft_s <= turn.time_s
    assert last.bytes_up_payload == 71


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": "many", "output_tokens": -5, "input_tokens_details": []},
        {"input_tokens": None, "output_tokens": 0.5, "input_tokens_details": {"cached_tokens": {}}},
    ],
)
async def test_a_usage_that_is_none_counts_nothing(run: Run, usage: dict[str, Any]) -> None:
    (turn,) = (await run.play(ScriptedSession([Answer(text="Done.", usage=usage)]))).turns
    assert (turn.input_tokens, turn.cached_tokens, turn.output_tokens) == (0, 0, 0)


async def test_a_usage_beyond_all_measure_can_still_be_written(run: Run) -> None:
    (turn,) = (await run.play(ScriptedSession([Answer(text="Done.", usage={"input_tokens": 10**400})]))).turns
    assert msgspec.json.decode(msgspec.json.encode(turn.input_tokens)) == 2**53


async def test_of_calls_with_one_id_only_the_first_is_carried_out(run: Run) -> None:
    """Its answer is not that of the others, which would be taken for done."""
    calls = (call("same", "run", command="echo 1"), call("same", "write", path="a", text="x"), call("b", "list"))
    session = ScriptedSession([Answer(calls=calls), Answer(text="Done.")])
    await run.play(session)
    assert run.commands == ["echo 1"]
    assert [item["output"] for item in session.sent[1]] == [
        "exit status: 0\n1\n",
        "error: not carried out: an earlier call of this turn has the same call_id",
        "(empty)",
    ]


async def test_calls_that_only_read_run_side_by_side_and_others_in_order(run: Run) -> None:
    script = "for i in 1 2 3; do echo $0 >> log; done"
    calls = (
        call("1", "run", command=f"sh -c '{script}' a"), call("2", "run", command=f"sh -c '{script}' b"),
        call("3", "read", path="log"), call("4", "list"), call("5", "write", path="log", text=""),
    )  # fmt: skip
    session = ScriptedSession([Answer(calls=calls), Answer(text="Done.")])
    await run.play(session)
    outputs = {item["call_id"]: item["output"] for item in session.sent[1]}
    assert outputs["3"] == "a\na\na\nb\nb\nb\n"
    assert run.seen.lines[2:6] == ["+run", "-run", "+run", "-run"]
    assert run.seen.lines[6:8] == ["+read", "+list"]
    assert run.seen.lines[10:12] == ["+write", "-write"]


async def test_a_turn_with_far_too_many_calls(run: Run) -> None:
    session = ScriptedSession([Answer(calls=tuple(call(str(n), "list") for n in range(MAX_CALLS + 2))), Answer()])
    await run.play(session)
    outputs = [item["output"] for item in session.sent[1]]
    assert outputs == ["(empty)"] * MAX_CALLS + [f"error: not carried out: a turn may have {MAX_CALLS} calls"] * 2


@pytest.mark.parametrize(
    ("limits", "ending", "turns"),
    [({"turns": 2}, "turn_limit", 2), ({"tokens": 20}, "token_limit", 2), ({"tokens": 12}, "token_limit", 2)],
)
async def test_a_limit_ends_the_run(run: Run, limits: dict[str, int], ending: str, turns: int) -> None:
    session = ScriptedSession([Answer(calls=(call(str(n), "run", command=f"echo {n}"),)) for n in range(9)])
    result = await run.play(session, **limits)
    assert (result.ending, len(result.turns)) == (ending, turns)
    assert result.reason
    assert run.commands == [f"echo {n}" for n in range(turns - 1)], "the calls of the last answer are not carried out"


async def test_a_last_answer_beyond_the_limit_of_tokens_completes(run: Run) -> None:
    assert (await run.play(ScriptedSession([Answer(text="x", tokens=999)]), tokens=5)).ending == "completed"


async def test_the_limit_of_time_ends_a_command_and_a_turn(run: Run) -> None:
    session = ScriptedSession([Answer(calls=(call("1", "run", command="sleep 99"),))])
    result = await run.play(session, time_s=0.3)
    assert (result.ending, run.lines()[-1]["ending"]) == ("time_limit", "time_limit")
    hanging = ScriptedSession([Answer(hangs=asyncio.Event())])
    assert (await run.play(hanging, time_s=0.05)).ending == "time_limit"
    assert hanging.turns[0].cancelled


async def test_an_answer_that_is_cut_short_is_not_complete(run: Run) -> None:
    session = ScriptedSession([Answer(text="I wou", status="incomplete", reason="max_output_tokens")])
    result = await run.play(session)
    assert (result.ending, result.reason) == ("incomplete", "the model's answer was cut short: max_output_tokens")
    run.again()
    later = await run.play(ScriptedSession([], session.history))
    assert (later.ending, later.reason) == ("incomplete", "the model's answer was cut short: incomplete")


async def test_a_call_that_cannot_be_read_is_no_good_end(run: Run) -> None:
    session = ScriptedSession([Answer(calls=(FunctionCall("1", None, "{}"),))])  # type: ignore[arg-type] # a server's
    result = await run.play(session)
    assert (result.ending, result.reason) == ("incomplete", "the model's answer has a call that cannot be read")
    run.again()
    assert (await run.play(ScriptedSession([], session.history))).turns == ()


async def test_an_error_of_the_client_ends_the_run_in_its_words(run: Run) -> None:
    error = OutcomeUnknownError("The connection broke.", "Look before you send it again.")
    result = await run.play(ScriptedSession([Answer(error=error)]))
    assert (result.ending, result.reason) == ("failed", "The connection broke. Look before you send it again.")


async def test_a_key_that_the_server_refuses_is_told_with_the_settings_of_the_agent(run: Run) -> None:
    error = CreateRefusedError("The server refused the turn.", "Send it again, changed.", status=401)
    result = await run.play(ScriptedSession([Answer(error=error)]))
    assert result.ending == "failed"
    assert result.reason.endswith("changed. The agent's key is the one in SEGUE_AGENT_KEY, [agent] key or --key.")
    error = CreateRefusedError("The server refused the turn.", "Send it again, changed.", status=400)
    assert "KEY" not in (await run.play(ScriptedSession([Answer(error=error)]))).reason


async def test_the_words_of_the_server_are_told(run: Run) -> None:
    error = ResponseFailedError("The turn failed.", "Wait.", code="overloaded", message="Too many requests.")
    result = await run.play(ScriptedSession([Answer(error=error)]))
    assert result.reason == "The turn failed. Wait. The server says: Too many requests."


async def test_the_words_of_the_server_are_told_once(run: Run) -> None:
    error = ResponseFailedError("The turn failed (too_many: Too many.).", "Wait.", message="Too many.")
    result = await run.play(ScriptedSession([Answer(error=error)]))
    assert result.reason == "The turn failed (too_many: Too many.). Wait."


async def test_any_other_error_is_a_fault_of_ours(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        await run.play(ScriptedSession([Answer(error=ZeroDivisionError())]))


async def test_a_run_that_is_stopped_kills_its_command(run: Run) -> None:
    session = ScriptedSession([Answer(calls=(call("1", "run", command="sleep 99"), call("2", "list")))])
    running = asyncio.create_task(run.play(session))
    await run.seen.call_has_started.wait()
    assert run.loop is not None
    run.loop.stop()
    result = await running
    assert (result.ending, result.reason) == ("interrupted", "the run was interrupted")
    assert [line["type"] for line in run.lines()[-2:]] == ["call_started", "ended"]


async def test_a_run_that_is_stopped_cancels_its_turn(run: Run) -> None:
    hangs = asyncio.Event()
    session = ScriptedSession([Answer(hangs=hangs)])
    running = asyncio.create_task(run.play(session))
    await hangs.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert session.turns[0].cancelled
    AgentLoop.stop(run.loop)  # type: ignore[arg-type] # a run that has ended can be stopped
    assert len(session.saved) == 2


async def test_a_file_that_cannot_be_written_hides_no_error(run: Run) -> None:
    """That a turn may have run must be told, whatever else goes wrong."""
    session = ScriptedSession([Answer(error=OutcomeUnknownError("The connection broke.", "Look first."))])

    def save() -> None:
        if len(session.saved) > 1:
            raise SessionFileError("The session could not be written: no space.", "The session itself goes on.")

    session.on_save = save
    result = await run.play(session)
    assert (result.ending, result.reason) == ("failed", "The connection broke. Look first.")


async def test_a_run_that_is_stopped_is_interrupted_though_its_file_cannot_be_written(run: Run) -> None:
    hangs = asyncio.Event()
    session = ScriptedSession([Answer(hangs=hangs)])

    def save() -> None:
        if len(session.saved) > 1:
            raise SessionFileError("The session could not be written: no space.", "The session itself goes on.")

    session.on_save = save
    running = asyncio.create_task(run.play(session))
    await hangs.wait()
    assert run.loop is not None
    run.loop.stop()
    assert (await running).ending == "interrupted"


async def test_a_run_goes_on_without_running_anything_twice(run: Run) -> None:
    """Killed in the third call: the first two are kept, the third may have happened, the fourth is carried out."""
    calls = (
        call("1", "read", path="none"), call("2", "run", command="echo 2"),
        call("3", "run", command="sleep 99"), call("4", "run", command="echo 4"),
    )  # fmt: skip
    session = ScriptedSession([Answer(calls=calls), Answer(text="Done.")])
    running = asyncio.create_task(run.play(session))
    await run.sleeps.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    run.again()
    result = await run.play(ScriptedSession(session.script, session.history))
    assert (result.ending, run.commands) == ("completed", ["echo 4"])
    outputs = [line["output"] for line in run.lines() if line["type"] == "call_finished"]
    assert outputs[:2] == ["error: 'none': no such file or directory", "exit status: 0\n2\n"]
    assert outputs[2].startswith("error: the agent was interrupted while this ran")
    assert outputs[3:] == ["exit status: 0\n4\n"]


async def test_outputs_whose_turn_failed_are_sent_again(run: Run) -> None:
    error = OutcomeUnknownError("The connection broke.", "Look before you send it again.")
    session = ScriptedSession([Answer(calls=(call("1", "run", command="date"),)), Answer(error=error)])
    assert (await run.play(session)).ending == "failed"
    run.again()
    later = ScriptedSession([Answer(text="Done.")], session.history)
    assert (await run.play(later)).ending == "completed"
    assert (later.sent[0], run.commands) == (session.sent[1], [])


async def test_a_read_that_was_interrupted_is_done_again(run: Run) -> None:
    run.transcript.write("call_started", call_id="1")
    session = ScriptedSession([Answer(text="Done.")], [b'{"type":"function_call","call_id":"1","name":"list"}'])
    await run.play(session)
    assert session.sent[0][0]["output"] == "(empty)"


async def test_a_call_whose_id_an_earlier_turn_had_is_not_taken_for_answered(run: Run) -> None:
    """Some models count their calls anew in each turn."""
    first = ScriptedSession(
        [Answer(calls=(call("call_0", "list"),)), Answer(calls=(call("call_0", "run", command="sleep 60"),))]
    )
    playing = asyncio.create_task(run.play(first))
    await run.sleeps.wait()
    assert run.loop is not None
    run.loop.stop()
    assert (await playing).ending == "interrupted"
    run.again()
    session = ScriptedSession([Answer(text="Done.")], first.history)
    result = await run.play(session)
    assert (result.ending, len(result.turns)) == ("completed", 1)
    assert "was interrupted while this ran" in session.sent[0][0]["output"]


async def test_a_run_that_was_done_has_nothing_to_do(run: Run) -> None:
    session = ScriptedSession([Answer(text="Done.")])
    await run.play(session)
    run.again()
    assert (await run.play(ScriptedSession([], session.history))).turns == ()


async def test_a_turn_in_flight_is_taken_up_again(run: Run) -> None:
    session = ScriptedSession([Answer(calls=(call("1", "list"),)), Answer(text="Done.")])
    session.pending_turn = session.send("the task")
    result = await run.play(session)
    assert (result.ending, len(result.turns)) == ("completed", 2)
    assert [len(items) for items in session.sent] == [1, 1]


async def test_a_turn_in_flight_that_never_ran_is_sent_again(run: Run) -> None:
    error = ConnectionFailedError("No connection came about.", "Send it again.")
    session = ScriptedSession([Answer(error=error), Answer(text="Done.")])
    session.pending_turn = session.send("the task")
    assert (await run.play(session)).ending == "completed"
    assert session.sent[0] == session.sent[1]


async def test_a_turn_in_flight_that_ran_is_not_sent_again_for_a_full_disk(run: Run) -> None:
    session = ScriptedSession([Answer(text="Done."), Answer(text="Paid twice.")])
    session.pending_turn = session.send("the task")

    def save() -> None:
        if len(session.saved) > 1:
            raise SessionFileError("The session could not be written: no space.", "The session itself goes on.")

    session.on_save = save
    result = await run.play(session)
    assert (result.ending, len(session.sent)) == ("failed", 1)
    assert "no space" in result.reason


async def test_a_turn_in_flight_that_may_have_run_is_not_sent_again(run: Run) -> None:
    error = OutcomeUnknownError("The server has forgotten it.", "Look first.")
    session = ScriptedSession([Answer(error=error)])
    session.pending_turn = session.send("the task")
    result = await run.play(session)
    assert (result.ending, result.reason) == ("failed", "The server has forgotten it. Look first.")
    assert len(session.sent) == 1
