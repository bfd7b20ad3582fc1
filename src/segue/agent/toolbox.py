"""The table of the tools: their schemas, the check of what a model sent, and how a call is carried out.

A schema is made from the struct that the arguments are read into, so it is written once. It is strict: each argument
must be there and none other; one that may be left out takes null. What cannot be read is answered with words that the
model can act on. Not here: what the tools do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from segue.agent import file_tools as files
from segue.agent.command import Approval, RunArguments, run_command
from segue.agent.search import SearchArguments, search_files
from segue.agent.workspace import ToolError, Workspace

#: Strict schemas have no defaults: null stands for them. Not every provider knows bounds; arguments are checked here.
_LEFT_OUT = frozenset({"default", "minimum", "maximum"})

#: What a model is told of a failed call is cut to this.
_MAX_REASON_CHARACTERS = 2000
_MAX_NAME_CHARACTERS = 100


class AgentTool(Struct, frozen=True):
    """One tool. A tool that only reads may run beside others that only read."""

    name: str
    arguments: type[Struct]
    call: Callable[[Any], Awaitable[str]]
    only_reads: bool


class ToolOutput(Struct, frozen=True):
    """What a model is told of a call."""

    text: str
    failed: bool = False


class Toolbox:
    """The six tools on one workspace."""

    def __init__(self, workspace: Workspace, *, environment: Mapping[str, str], approval: Approval) -> None:
        def in_thread(work: Callable[[Workspace, Any], str]) -> Callable[[Any], Awaitable[str]]:
            return lambda arguments: asyncio.to_thread(work, workspace, arguments)

        search = partial(search_files, workspace, environment=environment)
        run = partial(run_command, workspace, environment=environment, approval=approval)
        tools = (
            AgentTool("list", files.ListArguments, in_thread(files.list_folder), only_reads=True),
            AgentTool("read", files.ReadArguments, in_thread(files.read_file), only_reads=True),
            AgentTool("search", SearchArguments, search, only_reads=True),
            AgentTool("edit", files.EditArguments, in_thread(files.edit_file), only_reads=False),
            AgentTool("write", files.WriteArguments, in_thread(files.write_file), only_reads=False),
            AgentTool("run", RunArguments, run, only_reads=False),
        )
        self._tools = {tool.name: tool for tool in tools}

    def only_reads(self, name: str) -> bool:
        """Tell whether a call of this name changes nothing. An unknown one is only answered."""
        tool = self._tools.get(name)
        return tool is None or tool.only_reads

    async def call(self, name: str, arguments: str) -> ToolOutput:
        """Carry out a call; whatever goes wrong is told to the model."""
        tool = self._tools.get(name)
        if tool is None:
            return _failed(f"there is no tool {name[:_MAX_NAME_CHARACTERS]!r}; there are {', '.join(self._tools)}")
        try:
            return ToolOutput(await tool.call(_read(tool, arguments)))
        except (ToolError, OSError) as error:  # the system can lack files, memory or processes
            return _failed(str(error))

    def definitions(self) -> list[dict[str, Any]]:
        """Return the tools as a request names them."""
        return [_definition(tool) for tool in self._tools.values()]


def _failed(reason: str) -> ToolOutput:
    """Return what a model is told of a call that failed; a reason may quote all that the model has said."""
    if len(reason) > _MAX_REASON_CHARACTERS:
        reason = f"{reason[: _MAX_REASON_CHARACTERS // 2]} … {reason[-_MAX_REASON_CHARACTERS // 2 :]}"
    return ToolOutput(f"error: {reason}", failed=True)


def _read(tool: AgentTool, arguments: str) -> Struct:
    try:
        return msgspec.json.decode(arguments or "{}", type=tool.arguments)
    except msgspec.DecodeError as error:  # a ValidationError is one too
        fields = ", ".join(tool.arguments.__struct_fields__)
        raise ToolError(f"the arguments of {tool.name} ({fields}) cannot be read: {error}") from None


def _definition(tool: AgentTool) -> dict[str, Any]:
    schema = msgspec.json.schema(tool.arguments, ref_template="{name}")["$defs"][tool.arguments.__name__]
    properties = _without(_LEFT_OUT, schema["properties"])
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "name": tool.name,
        "description": schema["description"],
        "parameters": {**parameters, "additionalProperties": False},
        "strict": True,
    }


def _without(names: frozenset[str], schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Leave out members of a schema at every depth."""
    if isinstance(schema, list):
        return [_without(names, one) for one in schema]
    if isinstance(schema, dict):
        return {name: _without(names, one) for name, one in schema.items() if name not in names}
    return schema
