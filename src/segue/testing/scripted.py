"""The scripted model, under the name that tests import it by; it lives in `segue.upstreams.scripted`.

model = ScriptedUpstream([call("call_1", "add", "{}"), say("It is ", "five.")])
async with serving(config, Router([Rule(model, ["gpt-*"])])) as (gateway, url): ...
model.assert_done()
"""

from __future__ import annotations

from segue.upstreams.scripted import (
    MODEL,
    Call,
    Fail,
    Refuse,
    ScriptedTurn,
    ScriptedUpstream,
    ScriptError,
    Step,
    Text,
    Truncate,
    Wait,
    call,
    say,
)

__all__ = [
    "MODEL",
    "Call",
    "Fail",
    "Refuse",
    "ScriptError",
    "ScriptedTurn",
    "ScriptedUpstream",
    "Step",
    "Text",
    "Truncate",
    "Wait",
    "call",
    "say",
]
