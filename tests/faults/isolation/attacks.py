"""What one hostile tenant does to a gateway, over HTTP and WebSockets: each attack goes on until it is cancelled.

An attack has a pace, as a client has behind a network of its own: it must not take the processor from the gateway that
it attacks. Not here: attacks through the tunnel (`tunnel_attacks`), and hostile providers (`hostile_provider`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec

from tests.faults.isolation.wire import Target, Wire, connected, create, frame

#: What goes wrong for an attacker, who tries again.
GIVEN_UP = (OSError, EOFError, TimeoutError, ValueError)
FOREVER_S = 3600.0
MIB = 1 << 20

Run = Callable[[Target], Coroutine[Any, Any, None]]


class Attack(msgspec.Struct, frozen=True):
    """An attack. `case` is what it is a case of; `shapes` are made before it begins."""

    case: str
    name: str
    run: Run
    shapes: tuple[str, ...] = ()


async def again(target: Target, attempt: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Do something for ever, with a pause behind each time."""
    while True:
        with suppress(*GIVEN_UP):
            await attempt()
        await asyncio.sleep(every_s / target.pace)


async def crowd(
    target: Target, count: int, attempt: Callable[[], Awaitable[None]], *, every_s: float, per_s: float = 400
) -> None:
    """Let so many do something for ever; they begin one after the other."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(again(target, attempt, every_s))
            await asyncio.sleep(1 / per_s / target.pace)


async def until_closed(wire: Wire) -> None:
    """Read what comes, and throw it away, until the other end closes."""
    while await wire.reader.read(1 << 16):
        pass


async def asked(target: Target, data: bytes) -> tuple[int, bytes]:
    """Send a request on a connection of its own and return the reply."""
    async with connected(target, data, buffer_bytes=MIB) as wire:
        return await wire.reply()


def holding(first: Callable[[Target], bytes]) -> Callable[[Target], Coroutine[Any, Any, None]]:
    """Make what sends the beginning of something and then holds the connection."""

    async def attempt(target: Target) -> None:
        async with connected(target, first(target)) as wire:
            await until_closed(wire)

    return attempt


def many(count: int, attempt: Run, *, every_s: float = 0.5) -> Run:
    """Make an attack by so many connections at once."""

    async def attack(target: Target) -> None:
        await crowd(target, count, lambda: attempt(target), every_s=every_s)

    return attack


# --- connections --------------------------------------------------------------------------------------------------


def half_head(target: Target) -> bytes:
    return target.post(b"")[:-2]


def half_body(target: Target) -> bytes:
    return target.post(b"x" * 100)[:-50]


def large_half_body(target: Target) -> bytes:
    return target.post(_zeros(15 * MIB))[:-MIB]


async def dripping_head(target: Target) -> None:
    async with connected(target, target.post(b"")[:-2]) as wire:
        while True:
            await wire.send(b"X-Drip: 1\r\n")
            await asyncio.sleep(2)


async def idle_keep_alive(target: Target) -> None:
    async with connected(target, target.head("GET", "/healthz")) as wire:
        await until_closed(wire)


async def silent_websocket(target: Target) -> None:
    async with connected(target, target.upgrade()) as wire:
        await until_closed(wire)


async def half_frame(target: Target) -> None:
    """The head of a large message, and a little of it."""
    async with connected(target, target.upgrade() + frame(_zeros(8 * MIB))[:1000]) as wire:
        await until_closed(wire)


async def unmasked_frame(target: Target) -> None:
    async with connected(target, target.upgrade() + frame(create(), masked=False)) as wire:
        await until_closed(wire)


def aborted_upgrade(path: str, *lines: str) -> Run:
    async def attempt(target: Target) -> None:
        async with connected(target, target.upgrade(path, *lines)) as wire:
            await asyncio.sleep(0)
            wire.reset()

    return attempt


# --- readers ------------------------------------------------------------------------------------------------------


def large_instructions() -> dict[str, object]:
    return {"instructions": _text(15 * MIB)}


def many_tools() -> dict[str, object]:
    return {"tools": [{"type": "function", "name": f"f{n}", "parameters": {}} for n in range(20_000)]}


def sleeping_reader(make: Callable[[], dict[str, object]]) -> Run:
    """A stream that says much and is never read."""
    body = cache(lambda: create(**make(), stream=True, store=False))

    async def attempt(target: Target) -> None:
        async with connected(target, target.post(body()), buffer_bytes=1024):
            await asyncio.sleep(8)

    return attempt


async def sleeping_lanes(target: Target) -> None:
    """A WebSocket with seventeen turns that say much, and is never read."""
    async with connected(target, target.upgrade(), buffer_bytes=1024) as wire:
        for number in range(17):
            lane = {} if number == 0 else {"stream_id": f"lane{number}"}
            await wire.send(frame(create(instructions=_text(4 * MIB), store=False, **lane)))
            await asyncio.sleep(0.2)
        await asyncio.sleep(10)


# --- requests -----------------------------------------------------------------------------------------------------


@cache
def _zeros(size: int) -> bytes:
    return b"0" * size


@cache
def _text(size: int) -> str:
    return "x" * size


def _asking(fields: str) -> bytes:
    return f'{{"type":"response.create","model":"scripted","store":false,{fields}}}'.encode()


def _listed(unit: str, times: int) -> str:
    return "[" + ",".join(unit.replace("#", str(number)) for number in range(times)) + "]"


SHAPES: dict[str, Callable[[], bytes]] = {
    "fields": lambda: _asking('"input":"x",' + _listed('"f#":1', 1_000_000)[1:-1]),
    "items": lambda: _asking('"input":' + _listed('{"type":"a"}', 1_200_000)),
    "messages": lambda: _asking('"input":' + _listed('{"role":"user","content":"x"}', 20_000)),
    "long texts": lambda: _asking('"input":' + _listed('{"role":"user","content":"' + "x" * 70_000 + '"}', 220)),
    "tools": lambda: _asking('"input":"x","tools":' + _listed('{"type":"function","name":"f#"}', 33_000)),
    "properties": lambda: _asking(
        '"input":"x","text":{"format":{"type":"json_schema","name":"s","schema":{"type":"object","properties":{'
        + _listed('"p#":{"type":"string"}', 45_000)[1:-1]
        + "}}}}"
    ),
    "escapes": lambda: _asking('"input":"' + "\\u00e9" * 2_500_000 + '"'),
    "half characters": lambda: _asking('"input":"' + "\\ud800" * 2_500_000 + '"'),
    "nested": lambda: _asking('"input":"x","x":' + "[" * 100_000 + "]" * 100_000),
    "metadata": lambda: _asking('"input":"x","metadata":{' + _listed('"k#":"v"', 100_000)[1:-1] + "}"),
    "call outputs": lambda: _asking(
        '"input":' + _listed('{"type":"function_call","call_id":"c#","name":"f","arguments":"{}"}', 18_000)
    ),
}


@cache
def shape(name: str) -> bytes:
    """Return a large request of a shape, made once."""
    return SHAPES[name]()


def large_requests(*names: str, pause_s: float = 0.5) -> Run:
    """One large request after the other, of each shape."""

    async def attack(target: Target) -> None:
        while True:
            for name in names:
                with suppress(*GIVEN_UP):
                    async with asyncio.timeout(30):
                        await asked(target, target.post(shape(name)))
                await asyncio.sleep(pause_s / target.pace)

    return attack


def large_messages(*names: str, pause_s: float = 0.5) -> Run:
    """The same, as messages of WebSockets."""

    async def attack(target: Target) -> None:
        while True:
            for name in names:
                with suppress(*GIVEN_UP):
                    async with asyncio.timeout(30), connected(target, target.upgrade(), buffer_bytes=MIB) as wire:
                        await wire.reply_head()
                        await wire.send(frame(shape(name)))
                        while b'"type":"response.completed"' not in (await wire.message())[:60]:
                            pass
                await asyncio.sleep(pause_s / target.pace)

    return attack


async def pages_of_a_long_history(target: Target) -> None:
    """A stored response of many items, listed again and again."""
    body = json.loads(shape("messages")) | {"store": True}
    _, reply = await asked(target, target.post(json.dumps(body).encode()))
    ident = json.loads(reply)["id"]
    path = f"/v1/responses/{ident}/input_items?limit=1"
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(again(target, lambda: _discard(asked(target, target.head("GET", path))), 0.1))


async def storing(target: Target) -> None:
    """Fill the store, a megabyte at a time."""
    body = create(input=_text(MIB))
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(again(target, lambda: _discard(asked(target, target.post(body))), 0.25))


async def storing_small(target: Target) -> None:
    """Fill the store with many small responses."""
    body = create(input="x")
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(again(target, lambda: _discard(asked(target, target.post(body))), 0.05))


async def _discard(work: Awaitable[object]) -> None:
    await work


# --- turns --------------------------------------------------------------------------------------------------------


def kept_turns(count: int, **fields: object) -> Run:
    """Background turns, as many as there can be."""
    body = create(**fields, background=True)

    async def attack(target: Target) -> None:
        await crowd(target, count, lambda: _discard(asked(target, target.post(body))), every_s=2.0, per_s=100)

    return attack


def streams(count: int, *, every_s: float = 1.0, **fields: object) -> Run:
    """Streams that are read, as many at once."""
    body = create(**fields, stream=True, store=False)

    async def attempt(target: Target) -> None:
        async with connected(target, target.post(body)) as wire:
            await until_closed(wire)

    async def attack(target: Target) -> None:
        await crowd(target, count, lambda: attempt(target), every_s=every_s, per_s=100)

    return attack


def large(name: str, attack: Callable[..., Run], *shapes: str) -> Attack:
    return Attack("A6", name, attack(*shapes), shapes)


ATTACKS: Sequence[Attack] = (
    Attack("A3", "streams of large settings that nobody reads", many(8, sleeping_reader(large_instructions))),
    Attack(
        "A3",
        "streams of many tools that nobody reads",
        many(8, sleeping_reader(many_tools)),
    ),
    Attack("A3", "lanes of large settings that nobody reads", many(2, sleeping_lanes)),
    Attack("A4", "half heads", many(1100, holding(half_head))),
    Attack("A4", "connections that say nothing", many(1100, holding(lambda _: b""))),
    Attack("A4", "half bodies", many(400, holding(half_body))),
    Attack("A4", "connections that idle", many(1100, idle_keep_alive)),
    Attack("A4", "heads that drip", many(600, dripping_head)),
    Attack("A4", "half frames", many(300, half_frame)),
    large("fields and items", large_requests, "fields", "items", "metadata", "nested"),
    large("messages, tools, properties", large_requests, "messages", "tools", "properties", "call outputs"),
    large("long texts and escapes", large_requests, "long texts", "escapes", "half characters"),
    large("large messages of WebSockets", large_messages, "fields", "messages", "tools", "long texts"),
    Attack("A6", "pages of a long history", pages_of_a_long_history, ("messages",)),
    Attack("A7", "megabytes to store", storing),
    Attack("A7", "many responses to store", storing_small),
    Attack("A10", "frames that are not masked", many(10, unmasked_frame, every_s=0.2)),
    Attack("A12", "upgrades that are given up", many(5, aborted_upgrade("/v1/responses"), every_s=0.1)),
    Attack("A13", "large bodies that do not end", many(70, holding(large_half_body), every_s=2.0)),
    Attack("A14", "a provider that never begins", streams(4, model="interim")),
    Attack("A14", "a provider with an endless head", streams(4, model="head")),
    Attack("A14", "a provider that says nothing, at length", streams(4, model="comments")),
    Attack("A14", "a provider that says very much", streams(4, model="events")),
    Attack("A14", "a provider with one endless event", streams(4, model="line")),
    Attack("A15", "kept turns", kept_turns(300, model="hang")),
    Attack("A15", "turns at a provider that hangs", streams(120, model="hang")),
    Attack("A15", "silent WebSockets", many(600, silent_websocket)),
)
