"""What the loop tells while it runs, and what it returns at its end.

Not here: how it is shown (`segue.cli.agent_view`), and the report of a run (`segue.cli.agent_report`).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from segue.agent.toolbox import ToolOutput
from segue.client.function_calls import FunctionCall

#: How a run ends. `incomplete`: the model's last answer was cut short by a limit of its own.
Ending = Literal["completed", "incomplete", "failed", "turn_limit", "time_limit", "token_limit", "interrupted"]


class RunLimits(Struct, frozen=True, kw_only=True):
    """How much a run may take; None: no limit. Tokens are those of all turns, input and output."""

    turns: int = 100
    time_s: float | None = None
    tokens: int | None = None


class AgentTurn(Struct, frozen=True, kw_only=True):
    """The figures of one turn, named as benchmarks name them; None if no output came."""

    bytes_up_payload: int
    bytes_up_wire: int
    bytes_down_wire: int
    ttft_s: float | None
    time_s: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    tool_calls: int


class RunResult(Struct, frozen=True, kw_only=True):
    """How a run ended. `reason` says why it did not complete; `text` is the model's last message."""

    ending: Ending
    turns: tuple[AgentTurn, ...]
    time_s: float
    text: str = ""
    reason: str = ""


class RunObserver:
    """Is told what happens. This one does nothing with it; a screen overrides what it shows."""

    def turn_started(self, number: int) -> None:
        """A turn is sent, the first one is 1."""

    def text_written(self, delta: str) -> None:
        """The model writes a message."""

    def turn_finished(self, turn: AgentTurn) -> None:
        """The answer is complete."""

    def call_started(self, call: FunctionCall) -> None:
        """A tool runs."""

    def call_finished(self, call: FunctionCall, output: ToolOutput) -> None:
        """It has ended."""
