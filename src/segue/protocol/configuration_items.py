"""Items that change the settings of the turns behind them: more tools, another effort, another format of the text.

A server of the Responses API reads them where they stand. For others the gateway puts what they say into the settings
of each turn, over what the request says: an item is newer than the settings that a client repeats. Pure. Not here: the
checks when such an item arrives (`items`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from segue.protocol.codec import decode, encode
from segue.protocol.items import CONFIGURATION, Item, key_of
from segue.protocol.problems import Problem, missing
from segue.protocol.requests import MOST_TOOLS, NAMED_TOOLS, Settings, too_many_tools

#: So many updates of a chain are kept as they came; each turn reads all of them.
MOST_KEPT = 64

#: No item of these types is without one of these.
_NAMES = tuple(f'"{kind}"'.encode() for kind in CONFIGURATION)


class _ConfigurationItem(msgspec.Struct):
    """Either of them, with the fields of both."""

    tools: list[dict[str, Any]] = []
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None


_configuration_items = msgspec.json.Decoder(_ConfigurationItem)


def updates_in(items: Iterable[Item]) -> tuple[Item, ...]:
    """Return those of the items that change settings."""
    return tuple(item for item in items if any(name in item for name in _NAMES) and key_of(item).kind in CONFIGURATION)


def follow_updates(before: tuple[Item, ...], new: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return the updates of a chain to the end of its next turn. Many become few that say the same."""
    updates = before + new
    return updates if len(updates) <= MOST_KEPT else _fold(updates)


def _fold(updates: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return one update that changes what all of these change; what no turn can have stays as it is."""
    found = with_updates(Settings(model=""), updates)
    if isinstance(found, Problem):
        return updates
    fields = {"tools": found.tools, "reasoning": found.reasoning, "text": found.text}
    return (encode({"type": "configuration_update", **fields}),)


def with_updates(settings: Settings, updates: Sequence[Item]) -> Settings | Problem:
    """Return settings with what these items change, the newest last. A tool takes the place of one of its name."""
    read = []
    for item in updates:
        update = decode(item, _configuration_items, "input")
        if isinstance(update, Problem):  # of a turn that an earlier version has stored, which did not check it
            return update
        read.append(update)
    tools = {_key(tool, place): tool for place, tool in enumerate((*settings.tools, *_tools_of(read)))}
    if len(tools) > MOST_TOOLS:
        return too_many_tools(len(tools))
    if any(tool.get("type") in NAMED_TOOLS and not isinstance(tool.get("name"), str) for tool in tools.values()):
        return missing("input.tools.name")
    reasoning, text = dict(settings.reasoning or {}), dict(settings.text)
    for update in read:
        reasoning |= _given(update.reasoning)
        text |= _given(update.text)
    return msgspec.structs.replace(settings, tools=[*tools.values()], reasoning=reasoning or None, text=text)


def _tools_of(updates: Iterable[_ConfigurationItem]) -> Iterable[dict[str, Any]]:
    return (tool for update in updates for tool in update.tools)


def _key(tool: dict[str, Any], place: int) -> tuple[object, object]:
    """Return what makes two tools the same: type and name; a tool without a name is like no other."""
    name = tool.get("name")
    return (tool.get("type"), name) if isinstance(name, str) else (None, place)


def _given(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value is not None}
