"""The tool that runs a shell command, after the user has allowed it.

A command can do what the user can: the workspace does not confine it. It gets no API keys, no input and no terminal.
Not here: how the user is asked (`segue.cli.agent_approval`), and the process itself (`processes`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from segue.agent.processes import run_process
from segue.agent.workspace import ToolError, Workspace

TIME_LIMIT_S = 120
MAX_TIME_LIMIT_S = 600
MAX_OUTPUT_BYTES = 32 * 1024

#: Asks whether this command may run; None is yes, else the reason against it.
Approval: TypeAlias = Callable[[str], Awaitable[str | None]]


class RunArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Run a command with sh in the root of the workspace. It has no input; what it leaves running ends with it."""

    command: Annotated[str, Meta(description="The command, for example: python -m pytest -q")]
    time_limit_s: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TIME_LIMIT_S)] | None,
        Meta(description=f"Seconds that it may take, at most {MAX_TIME_LIMIT_S}; null: {TIME_LIMIT_S}."),
    ] = None


async def run_command(
    workspace: Workspace, arguments: RunArguments, *, environment: Mapping[str, str], approval: Approval
) -> str:
    """Return the exit status and the output."""
    reason = await approval(arguments.command)
    if reason is not None:
        raise ToolError(f"the command was not run: {reason}")
    limit_s = arguments.time_limit_s or TIME_LIMIT_S
    try:
        ended = await run_process(
            ("/bin/sh", "-c", arguments.command),
            folder=workspace.root,
            environment=environment,
            time_limit_s=limit_s,
            max_output_bytes=MAX_OUTPUT_BYTES,
        )
    except (OSError, ValueError) as error:  # it is longer than the system takes, or has a zero byte
        raise ToolError(f"the command could not be started: {error}") from None
    if ended.timed_out:
        return f"killed after {limit_s} s\n{ended.output}"
    how = f"exit status: {ended.status}" if ended.status >= 0 else f"ended by signal: {-ended.status}"
    return f"{how}\n{ended.output}"
