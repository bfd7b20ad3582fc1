"""A model that plays a script: which scripts it takes, and what it does in the engine with those that it plays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segue.config import UpstreamConfig
from segue.testing.scripted_model import TOOLS_OFFERED, ModelCall, ModelStep, write_scripted_model
from tests.integration.clients import Http
from tests.integration.providers import gateway

TOOL = {
    "type": "function",
    "name": "look",
    "strict": None,
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}
STEPS = [
    ModelStep(TOOLS_OFFERED, ModelCall("look", '{"at": "left"}')),
    ModelStep("a red door", ModelCall("look", '{"at": "right"}')),
    ModelStep("a green door", "Behind the green one. That one it is."),
]


def test_the_same_script_is_the_same_file(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    for path, otherwise in ((first, "Hi."), (second, "Hi."), (other, "No.")):
        write_scripted_model(path, STEPS, otherwise=otherwise)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([ModelStep("a", "One two."), ModelStep("b", "Three two.")], "have a word in common"),
        ([ModelStep(str(number), f"Say{number}.") for number in range(15)], "at most 14 steps"),
    ],
)
def test_a_script_that_cannot_be_played_is_refused(steps: list[ModelStep], wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=wrong):
        write_scripted_model(tmp_path / "model", steps, otherwise="Hi.")


@pytest.mark.local_engine
async def test_it_calls_its_tools_one_after_the_other_and_answers_by_what_they_found(tmp_path: Path) -> None:
    """However long the prompt is, and wherever in it something was found; texts come at any temperature."""
    write_scripted_model(tmp_path / "model", STEPS, otherwise="Hello there.")
    up = UpstreamConfig(
        name="s", dialect="local", models=["s"], model_file=str(tmp_path / "model"), context_tokens=4096, kv_bytes=1
    )
    asked: dict[str, Any] = {"model": "s", "store": False}
    async with gateway(up) as url, Http(url) as http:
        plain = (await http.create(**asked, input="Look for a door.", temperature=2.0)).body
        assert plain["output"][0]["content"][0]["text"] == "Hello there."
        items: list[Any] = [{"role": "user", "content": "Find it. " * 300}]
        calls = []
        for found in ("There is a red door.", "There is a green door. " + "And more. " * 50):
            (call,) = (await http.create(**asked, tools=[TOOL], input=items)).body["output"]
            calls.append((call["name"], json.loads(call["arguments"])))
            items += [call, {"type": "function_call_output", "call_id": call["call_id"], "output": found}]
        last = (await http.create(**asked, tools=[TOOL], input=items)).body
    assert calls == [("look", {"at": "left"}), ("look", {"at": "right"})]
    assert last["output"][0]["content"][0]["text"] == "Behind the green one. That one it is."
    assert last["usage"]["input_tokens_details"]["cached_tokens"] > 1000
