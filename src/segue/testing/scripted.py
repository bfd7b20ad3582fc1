"""The scripted model, under the name that tests import it by; it lives in `segue.upstreams.scripted`.

model = ScriptedUpstream([call("call_1", "add", "{}"), say("It is ", "five.")])
async with serving(config, Router([ModelRule(model, ["gpt-*"])])) as (gateway, url): ...
model.assert_done()
"""

from __future__ import annotations

from segue.upstreams.scripted import (
    MODEL,
    CallTool,
    EndItem,
    Fail,
    Refuse,
    Say,
    ScriptedTurn,
    ScriptedUpstream,
    ScriptError,
    Step,
    Truncate,
    Wait,
    call,
    say,
)

__all__ = [
    "MODEL",
    "CallTool",
    "EndItem",
    "Fail",
    "Refuse",
    "Say",
    "ScriptError",
    "ScriptedTurn",
    "ScriptedUpstream",
    "Step",
    "Truncate",
    "Wait",
    "call",
    "say",
]
