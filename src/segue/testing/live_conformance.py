"""The conformance suite of what gateways share while turns run: rules that both forms must keep, as checks.

A check is a coroutine function that is given the parts of one node, new and empty, and raises `AssertionError` if a
rule is broken. It is used as `store_conformance` is. Not here: what only several nodes can show, which is tested at
the form that has several.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from segue.stores.live.interface import Nodes, Notice


class LiveParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a check is given. The node is not started yet."""

    nodes: Nodes


LiveCheck = Callable[[LiveParts], Awaitable[None]]


async def _ignore(notice: Notice) -> None:
    """Act on nothing."""


async def a_started_node_has_a_lease(parts: LiveParts) -> None:
    """A node that was started lives, and knows its token and what data it shares."""
    nodes = parts.nodes
    await nodes.start(_ignore)
    assert nodes.held
    assert nodes.token > 0
    assert nodes.epoch
    assert [(one.node, one.token) for one in await nodes.living()] == [(nodes.id, nodes.token)]


async def a_notice_of_the_only_node_is_confirmed_at_once(parts: LiveParts) -> None:
    """Nobody else has to act."""
    await parts.nodes.start(_ignore)
    await parts.nodes.tell(Notice("deleted", "alice", ("resp_1",)))


async def a_node_that_leaves_lives_until_it_is_closed(parts: LiveParts) -> None:
    """What it has under way is still its own."""
    await parts.nodes.start(_ignore)
    await parts.nodes.drain()
    assert parts.nodes.held
    assert [one.draining for one in await parts.nodes.living()] == [True]


LIVE_CHECKS: list[Callable[[LiveParts], Coroutine[Any, Any, None]]] = [
    a_started_node_has_a_lease,
    a_notice_of_the_only_node_is_confirmed_at_once,
    a_node_that_leaves_lives_until_it_is_closed,
]
