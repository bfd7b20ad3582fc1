"""How a model of Anthropic's thinks in a turn: what the client asks for, and what the tool loop it is in allows.

A tool loop is what the model says from the last message of the user's on that holds more than results of tools. It is
one turn of the assistant to this API, and a turn has one configuration of thinking: a loop goes on as it began
(https://platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows). Models that think by a budget also want
the loop to begin with a thinking block if they think, and to hold none if they do not; models that choose by themselves
(adaptive thinking) do not. Later messages of a loop may lack thoughts, since a model that does not interleave them
thinks only once. Most models do not think where a tool must be called. Some think always, and cannot be made to call a
tool. Not here: how the choice is written (`settings`), and the blocks (`request`).
"""

from __future__ import annotations

import re

import msgspec

#: Models that think by a budget of tokens, which the API wants to be at least `LEAST_BUDGET`.
_BY_BUDGET = re.compile(r"claude-(?:[23][.-]|(?:opus|sonnet|haiku)-4(?:[.-][0-5])?(?:-\d{8}|[^0-9.-]|$))")
LEAST_BUDGET = 1024
#: Models that think where a tool must be called too. To all others the API answers 400 then: "Thinking may not be
#: enabled when tool_choice forces tool use." (https://github.com/langchain-ai/langchain-aws/pull/1141).
_THINKS_IF_FORCED = re.compile(r"claude-(?:opus-4[.-]8|(?:opus|sonnet|fable)-5)(?:-\d{8}|-(?!\d)|[^0-9.-]|$)")
#: Models that refuse `tool_choice` of the types `any` and `tool`, whether they think or not: 'tool_choice: type "tool"
#: and "any" are not supported for this model.' They call a tool where they see fit.
#: https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5#forced-tool-use-is-not-supported
_NEVER_FORCED = re.compile(r"claude-[a-z]+-5[.-][1-9](?!\d)")
#: Models that refuse `thinking` of the type `disabled`.
#: https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5#thinking-cant-be-disabled
_ALWAYS_THINKS = re.compile(r"claude-(?:[a-z]+-5[.-][1-9](?!\d)|(?:fable|mythos)-5)")
_LEAST_EFFORT = "low"
#: The effort of a loop that began with thoughts and does not say how hard it thinks.
_UNKNOWN_EFFORT = "medium"

_FORCED = "this model does not think where a tool must be called"
_ALWAYS = "this model always thinks; it is asked to think little"
_NO_ROOM = f"thinking takes at least {LEAST_BUDGET} of `max_output_tokens`"
_BEGAN_WITHOUT = "this model goes on without thinking in a tool loop that began without"
_BEGAN_OTHERWISE = "this model goes on thinking in a tool loop as it began"


class ToolLoop(msgspec.Struct, frozen=True):
    """What the model said since the user's last message: nothing yet (`begun` is false), or how it thought.

    `thoughts` is true if it holds thinking blocks, `thoughts_first` if it begins with one. `effort` is what the request
    asked for that the first of them was made in, if that is known.
    """

    begun: bool = False
    thoughts_first: bool = False
    thoughts: bool = False
    effort: str | None = None

    def continued(self, *, thoughts: bool, effort: str | None) -> ToolLoop:
        """Return the loop with one more thing that the model said, behind `thoughts` or not."""
        if not self.begun:
            return ToolLoop(begun=True, thoughts_first=thoughts, thoughts=thoughts, effort=effort if thoughts else None)
        if self.thoughts or not thoughts:
            return self
        return msgspec.structs.replace(self, thoughts=True, effort=effort)


class AskedThinking(msgspec.Struct, frozen=True):
    """What a request says that thinking depends on; `room` is how many tokens it may take.

    `exclusive` means that this model is known not to think where a tool is forced, whatever its name says.
    """

    model: str
    effort: str | None
    forced: bool
    room: int
    exclusive: bool = False

    @property
    def by_budget(self) -> bool:
        """Whether the model thinks by a budget."""
        return _BY_BUDGET.search(self.model) is not None

    @property
    def wanted(self) -> bool:
        """Whether the client asks for thinking."""
        return self.effort not in (None, "none")

    @property
    def obstacle(self) -> str | None:
        """Why the model cannot think in this turn, whatever it said before."""
        if self.forced and (self.exclusive or _THINKS_IF_FORCED.search(self.model) is None):
            return _FORCED
        return _NO_ROOM if self.by_budget and self.room < LEAST_BUDGET else None


class ChosenThinking(msgspec.Struct, frozen=True):
    """How the model thinks: not at all, or with an effort (None: as much as it likes).

    `bare` means that the history must hold no thoughts. `unmet` says why the client does not get what it asked for.
    """

    on: bool
    effort: str | None = None
    bare: bool = False
    unmet: str | None = None


_OFF = ChosenThinking(on=False)


def can_be_forced(model: str) -> bool:
    """Tell whether a model can be made to call a tool, as far as its name says."""
    return _NEVER_FORCED.search(model) is None


def choose_thinking(asked: AskedThinking, loop: ToolLoop) -> ChosenThinking:
    """Return how the model thinks in this turn."""
    obstacle = asked.obstacle
    if obstacle is not None:
        return ChosenThinking(on=False, bare=loop.thoughts, unmet=obstacle if asked.wanted else None)
    if asked.effort == "none" and _ALWAYS_THINKS.search(asked.model):
        return ChosenThinking(on=True, effort=_LEAST_EFFORT, unmet=_ALWAYS)
    if not asked.by_budget:
        return _choose_adaptive(asked, loop)
    if loop.begun:
        return _go_on(asked, loop)
    return ChosenThinking(on=True, effort=asked.effort) if asked.wanted else _OFF


def _choose_adaptive(asked: AskedThinking, loop: ToolLoop) -> ChosenThinking:
    if asked.wanted:
        return ChosenThinking(on=True, effort=asked.effort)
    if not loop.thoughts:
        return _OFF
    unmet = _BEGAN_OTHERWISE if asked.effort == "none" else None
    return ChosenThinking(on=True, effort=loop.effort, unmet=unmet)


def _go_on(asked: AskedThinking, loop: ToolLoop) -> ChosenThinking:
    """Choose within a loop, for a model with a budget."""
    if not loop.thoughts_first:
        return ChosenThinking(on=False, bare=loop.thoughts, unmet=_BEGAN_WITHOUT if asked.wanted else None)
    if loop.effort is not None:
        effort = loop.effort
    else:
        effort = asked.effort if asked.wanted and asked.effort else _UNKNOWN_EFFORT
    changed = asked.effort not in (None, effort)
    return ChosenThinking(on=True, effort=effort, unmet=_BEGAN_OTHERWISE if changed else None)
