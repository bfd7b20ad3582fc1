"""The way to a Redis or Valkey: scripts that run there, in batches, with bounded waits and a circuit.

What is asked for in one turn of the event loop travels together. A call that fails is not tried again here, since it
may have been carried out: scripts are written so that their callers can. After a failure calls are refused at once, but
for one now and then that tries. Not here: what the scripts do, and the keys they touch.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import msgspec
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.live_url import LiveUrl

_log = logging.getLogger("segue.live")

#: How long a call may take; the circuit opens for so long at first, and at most.
CALL_S: Final = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 4.0
#: So many calls travel together at most.
_BATCH = 256

Argument = str | bytes | int | float
Client = Redis | RedisCluster


class Script(msgspec.Struct, frozen=True):
    """A Lua script, and the digest by which servers know it."""

    text: str
    sha: str


def load_script(name: str) -> Script:
    """Return one of the scripts of this package."""
    text = resources.files("segue.stores.live").joinpath("scripts", f"{name}.lua").read_text(encoding="utf-8")
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class _ScriptCall:
    """One script that waits to be run."""

    __slots__ = ("args", "done", "keys", "script")

    def __init__(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument], done: asyncio.Future[Any]
    ) -> None:
        self.script = script
        self.keys = keys
        self.args = args
        self.done = done


class RedisLink:
    """Runs scripts at one deployment of Redis."""

    def __init__(self, where: LiveUrl, *, call_s: float = CALL_S) -> None:
        self.prefix = where.prefix
        self._call_s = call_s
        self._client = connect(where, timeout_s=call_s)
        self._queue: list[_ScriptCall] = []
        self._running: asyncio.Task[None] | None = None
        self._failures = 0
        self._closed_until = 0.0

    @property
    def available(self) -> bool:
        """Whether the latest call was answered."""
        return not self._failures

    async def run(self, script: Script, keys: Sequence[str], *args: Argument) -> Any:  # noqa: ANN401 - what a script returns
        """Run a script and return what it returns. Raises `LiveUnavailable`: it may have run, or not."""
        loop = asyncio.get_running_loop()
        if self._failures and loop.time() < self._closed_until:
            raise LiveUnavailable("Redis did not answer a moment ago")
        call = _ScriptCall(script, keys, args, loop.create_future())
        self._queue.append(call)
        if self._running is None:
            self._running = loop.create_task(self._run_queue())
        return await call.done

    async def aclose(self) -> None:
        """Close the connections."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._fail(self._queue, LiveUnavailable("the gateway stops"))
        await disconnect(self._client)

    async def _run_queue(self) -> None:
        calls: Sequence[_ScriptCall] = ()
        try:
            while self._queue:
                calls, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
                await self._run_batch(calls)
        finally:
            self._running = None
            self._fail(calls, LiveUnavailable("the gateway stops"))  # those that have no answer yet

    async def _run_batch(self, calls: Sequence[_ScriptCall]) -> None:
        try:
            async with asyncio.timeout(self._call_s * 2):  # a connection may have to be made
                answers = await self._ask(calls)
            raise_if_lost(answers)
        except (RedisError, OSError, TimeoutError) as error:
            self._note_failure(error)
            await self._look_for_servers()
            refused = LiveUnavailable(f"Redis does not answer: {type(error).__name__}")
            self._fail(calls, refused)
            waiting, self._queue = self._queue, []
            self._fail(waiting, refused)
            return
        self._note_answer()
        for call, answer in zip(calls, answers, strict=True):
            if call.done.done():
                continue
            if isinstance(answer, Exception):
                call.done.set_exception(LiveUnavailable(f"Redis refuses: {answer}"))
            else:
                call.done.set_result(answer)

    async def _ask(self, calls: Sequence[_ScriptCall]) -> Sequence[Any]:
        """Run scripts by their digests; those that the server does not know yet, by their text."""
        answers = list(await self._pipeline([(call, call.script.sha) for call in calls], "EVALSHA"))
        unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._pipeline([(calls[number], calls[number].script.text) for number in unknown], "EVAL")
            for number, answer in zip(unknown, again, strict=True):
                answers[number] = answer
        return answers

    async def _pipeline(self, calls: Sequence[tuple[_ScriptCall, str]], command: str) -> Sequence[Any]:
        pipeline = (
            self._client.pipeline(transaction=False) if isinstance(self._client, Redis) else self._client.pipeline()
        )
        for call, what in calls:
            pipeline.execute_command(command, what, len(call.keys), *call.keys, *call.args)
        answers: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def _look_for_servers(self) -> None:
        """Have the client of a cluster ask anew which server has which slots: it does so only when it tries again."""
        if isinstance(self._client, RedisCluster):
            with contextlib.suppress(RedisError, OSError):
                await self._client.aclose()

    def _note_failure(self, error: Exception) -> None:
        if not self._failures:
            _log.warning("action=live Redis does not answer: %s", error)
        pause = min(_FIRST_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S)
        self._failures = min(self._failures + 1, 10)
        self._closed_until = asyncio.get_running_loop().time() + pause

    def _note_answer(self) -> None:
        if self._failures:
            _log.warning("action=live Redis answers again")
        self._failures = 0

    @staticmethod
    def _fail(calls: Sequence[_ScriptCall], error: LiveUnavailable) -> None:
        for call in calls:
            if not call.done.done():
                call.done.set_exception(error)


def raise_if_lost(answers: Sequence[object]) -> None:
    """Raise the first loss of a connection: the client of a cluster returns it as if a server had said so."""
    for answer in answers:
        if isinstance(answer, RedisConnectionError | RedisTimeoutError):
            raise answer


async def disconnect(client: Client) -> None:
    """Close a client, with its connections to Sentinels."""
    await client.aclose()
    pool = client.connection_pool if isinstance(client, Redis) else None
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def connect(where: LiveUrl, *, timeout_s: float) -> Client:
    """Return a client, which connects when it is first used. It never tries a command again by itself."""
    common: Mapping[str, Any] = {
        "username": where.username,
        "password": where.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": CALL_S,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "segue",
        "protocol": 2,
    }
    if where.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in where.addresses]
        return RedisCluster(startup_nodes=nodes, ssl=where.tls, **common)
    if where.kind == "sentinel":
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # its constructor has no annotations
            list(where.addresses), sentinel_kwargs={"socket_timeout": CALL_S, "ssl": where.tls}, ssl=where.tls, **common
        )
        primary: Redis = sentinel.master_for(where.primary, db=where.db)
        return primary
    if where.path is not None:
        return Redis(unix_socket_path=where.path, db=where.db, **common)
    host, port = where.addresses[0]
    return Redis(host=host, port=port, db=where.db, ssl=where.tls, **common)
