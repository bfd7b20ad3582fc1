"""What is said with store=false is written nowhere, and neither is an API key: not in the store, its log or ours."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from segue.protocol.problems import Problem
from segue.testing.protocol_checker import Json
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import CallTool, Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Truncate, Wait, say
from tests.faults.clients import address_of, begin_post, http, opened, reset
from tests.faults.doubles import BrokenStore, Model
from tests.faults.gateways import Local, Process, listening, serving, until

pytestmark = pytest.mark.usefixtures("plain_loop")

MARKER = "xyzzy4f1d7c"
KEPT = "plugh83be02"
KEY = "sk-segue-b81d02f64f"

TOOL: Json = {"type": "function", "name": "look", "description": MARKER, "parameters": {"type": "object"}}
SAID: Json = {"store": False, "instructions": MARKER, "metadata": {MARKER: MARKER}, "tools": [TOOL], "user": MARKER}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where everything that this process writes is: working directory, temporary files, and a log of everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    handler = logging.FileHandler(tmp_path / "gateway.log", encoding="utf-8")
    handler.addFilter(lambda record: not record.name.startswith("websockets"))  # the client's own library
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield tmp_path
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


async def test_unstored_turns_leave_nothing(folder: Path) -> None:
    """Input, tool calls and answers, on every transport, also as children of a stored parent; stored turns do."""
    calling = ScriptedTurn((Say((MARKER,)), CallTool("call_1", "look", json.dumps({"q": MARKER}))))
    script = ScriptedUpstream([say(KEPT), calling, say(MARKER), say(MARKER), say(MARKER), say(KEPT)])
    async with listening(script, store=f"sqlite:///{folder}/segue.db") as local:
        async with opened(local.url) as socket, http(local.url) as client:
            parent = await socket.turn(KEPT)
            child = await socket.turn(MARKER, previous_response_id=parent["id"], **SAID)
            output = [{"type": "function_call_output", "call_id": "call_1", "output": MARKER}]
            await socket.turn(output, previous_response_id=child["id"], **SAID)
            await client.turn(MARKER, previous_response_id=parent["id"], **SAID)
            await client.stream(MARKER, **SAID)
            await client.turn(KEPT, previous_response_id=parent["id"])
            script.assert_done()
            assert _files_with(KEPT, folder) != []
            assert _files_with(MARKER, folder) == []
        await until(lambda: not local.gateway.services.drain.connections)
    assert _files_with(KEPT, folder) == ["segue.db"]
    assert _files_with(MARKER, folder) == []


async def test_unstored_turns_that_fail_leave_nothing(folder: Path) -> None:
    """Failed, refused, cut short, cancelled, and refused for what they continue."""
    script = ScriptedUpstream(
        [
            ScriptedTurn((Say((MARKER,)), Fail("server_error", MARKER))),
            ScriptedTurn((Refuse(Problem("upstream_error", MARKER)),)),
            ScriptedTurn((Say((MARKER,)), Truncate())),
            ScriptedTurn((Say((MARKER,)), Wait(asyncio.Event()))),
        ]
    )
    async with listening(script, store=f"sqlite:///{folder}/segue.db") as local:
        async with opened(local.url) as socket:
            for _ in range(2):
                await socket.create(MARKER, **SAID)
                await socket.answer()
            cut = await socket.turn(MARKER, **SAID)
            mismatch = await socket.refusal(MARKER, previous_response_id=cut["id"], store=True)
            assert mismatch["code"] == "store_mismatch"
            await socket.create(MARKER, **SAID)
            await socket.until("response.output_text.delta")
        await local.rest()
        assert _files_with(MARKER, folder) == []
    assert _files_with(MARKER, folder) == []


async def test_errors_that_quote_leave_nothing(folder: Path) -> None:
    """A client may be told what it said; a log may not."""
    async with listening(store=f"sqlite:///{folder}/segue.db") as local:
        async with opened(local.url) as socket, http(local.url) as client:
            for message in _wrong_messages():
                await socket.connection.send(message)
                assert (await socket.answer()).error is not None
            for message in _wrong_messages():
                async with client.session.post("/v1/responses", data=message) as reply:
                    assert reply.status >= 400
            for path in (MARKER, f"responses/{MARKER}", f"responses?{MARKER}", f"responses/{MARKER}/input_items"):
                assert (await client.send("GET", f"/v1/{path}"))[0] >= 400
        await _send_rubbish(local)
        assert _files_with(MARKER, folder) == []


async def test_exceptions_that_quote_leave_nothing(folder: Path) -> None:
    """What an upstream or a store raises may hold anything; what is logged of it is where it came from."""

    async def raises_at_once(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        if request.history.input:
            raise ValueError(MARKER) from KeyError(MARKER)
        yield []

    async def raises_later(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        try:
            yield []
            raise ValueError(MARKER)
        finally:
            raise RuntimeError(MARKER)

    async with listening(Model(raises_at_once, raises_later)) as local, opened(local.url) as socket:
        for _ in range(2):
            await socket.create(MARKER, **SAID)
            await socket.answer()
    broken = BrokenStore("append", "chain", "record", error=ZeroDivisionError(MARKER))
    async with listening(store=broken) as local, opened(local.url) as socket, http(local.url) as client:
        unknown = f"resp_{'0' * 40}"
        assert await client.status(unknown) == 500
        assert await client.refusal(MARKER, previous_response_id=unknown) == (400, "server_error")
        await socket.create(MARKER, previous_response_id=unknown, **SAID)
        assert await socket.close_code() == 1011
    log = (folder / "gateway.log").read_text("utf-8")
    assert [kind for kind in ("ValueError", "RuntimeError", "ZeroDivisionError") if kind not in log] == []
    assert _files_with(MARKER, folder) == []


async def test_the_command_leaves_neither_content_nor_keys(tmp_path: Path) -> None:
    """The real process, logging all it can, with keys, wrong keys and broken requests; also after a kill."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    table = f'[[key]]\nname = "alice"\ntenant = "alice"\nsha256 = "{digest}"\n'
    (tmp_path / "segue.toml").write_text(table, "utf-8")
    async with serving(tmp_path, "--store", "sqlite:///segue.db", "--log", "debug") as process:
        async with opened(process.url, key=KEY) as socket, http(process.url, key=KEY) as client:
            parent = await socket.turn(KEPT)
            await socket.turn(MARKER, previous_response_id=parent["id"], **SAID)
            await client.stream(MARKER, previous_response_id=parent["id"], **SAID)
            assert (await socket.refusal(MARKER, model=MARKER))["code"] == "model_not_found"
        async with http(process.url, key=f"{KEY}-wrong") as client:
            assert await client.refusal(MARKER) == (401, "invalid_api_key")
        await _send_rubbish(process)
        process.kill()
        await process.ended()
    assert _files_with(KEPT, tmp_path) != []
    assert _files_with(MARKER, tmp_path) == []
    assert _files_with(KEY, tmp_path) == []


def _wrong_messages() -> list[str]:
    """Write requests that are wrong in many ways, each in a place that an error could quote."""
    body = {"type": "response.create", "model": "scripted", "input": MARKER, **SAID}
    wrong: list[Json] = [
        {"model": 5},
        {"input": [{"type": "message", "role": MARKER, "content": MARKER}]},
        {"input": [{"type": "function_call_output", "call_id": MARKER, "output": MARKER}]},
        {"input": [{"type": "item_reference", "id": MARKER}]},
        {"previous_response_id": MARKER},
        {"previous_response_id": {"id": MARKER}},
        {"truncation": MARKER},
        {"tool_choice": MARKER},
        {"conversation": MARKER},
        {"stream_id": f" {MARKER}"},
        {"metadata": {MARKER * 10: "long"}},
        {"temperature": MARKER},
    ]
    return [json.dumps({**body, **fields}) for fields in wrong] + [f'{{"{MARKER}": ', f'"{MARKER}"', f"[{MARKER}"]


async def _send_rubbish(gateway: Local | Process) -> None:
    """Send what is hardly HTTP, with content and credentials in it, and go away in the middle."""
    secret = f"{KEY} {MARKER}".encode()
    for head in (
        b"%b\r\n\r\n" % secret,
        b"POST /v1/responses HTTP/9.%b\r\n\r\n" % secret,
        b"POST /v1/responses HTTP/1.1\r\nAuthorization %b\r\n\r\n" % secret,
        b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %b\r\n\r\n" % secret,
        b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % secret,
        b"GET /v1/%b HTTP/1.1\r\nHost: %b\r\nOrigin: %b\r\n\r\n" % (secret.replace(b" ", b"-"), secret, secret),
        b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nX: " + secret * 4000 + b"\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(*address_of(gateway.url))
        writer.write(head)
        writer.write_eof()
        await reader.read()
        writer.close()
    async with opened(gateway.url, key=KEY) as socket:
        socket.connection.transport.write(b"\x81\x05" + secret)  # a frame that is not masked
        await socket.connection.wait_closed()
    _, writer = await begin_post(gateway.url, MARKER)
    reset(writer.transport)


def _files_with(text: str, folder: Path) -> list[str]:
    """Return the names of the files whose bytes hold this text."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and text.encode() in path.read_bytes())
    return [path.relative_to(folder).as_posix() for path in found]
