"""kill -9: of the gateway in the middle of a client's turn, and of a client while it saves. The session goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import pytest

from segue.client.client import AsyncClient
from segue.client.errors import OutcomeUnknownError
from segue.client.session_file import read_session
from segue.client.session_journal import read_journal
from segue.client.stream_events import OutputTextDelta
from tests.faults.gated_command import HALF, REST
from tests.faults.gateways import Process, serving
from tests.faults.response_proxy import proxied
from tests.faults.response_servers import items_of

# In one process, `test_client_faults` shows the same.
pytestmark = [pytest.mark.usefixtures("plain_loop"), pytest.mark.deep]

#: Saves a session after each turn of its own, now and then with another history, and tells how often.
SAVING = """
import sys
from segue.client.local_history import EMPTY_HISTORY
from segue.client.session_file import SessionFile
from segue.client.session_state import SessionRecord
from segue.client.settings import SessionSettings

file, history = SessionFile(sys.argv[1], "http://server/v1"), EMPTY_HISTORY
for number in range(1, 1_000_000):
    history = history.append((b'{"number":%d,"text":"%b"}' % (number, b"x" * (number * 977 % 200_000)),))
    if number % 50 == 0:
        history = EMPTY_HISTORY.append(history.items[-1:])
    file.write(SessionRecord(settings=SessionSettings(model="m"), history=history))
    print(number, flush=True)
"""
STORE = ("--store", "sqlite:///segue.db")


@pytest.mark.parametrize("saves", [1, 7, 49, 50, 51, 120])
def test_a_session_that_is_killed_while_it_is_saved_is_as_it_was_saved_before(saves: int, tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    with subprocess.Popen((sys.executable, "-c", SAVING, str(path)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(saves):
            process.stdout.readline()
        process.kill()
        told = saves + len(process.stdout.readlines())
    record = read_journal(read_session(str(path)), "http://server/v1")
    assert msgspec.json.decode(record.history.items[-1])["number"] in {told, told + 1}, "saved, and not told any more"


def address(process: Process) -> tuple[str, int]:
    """Return where a process listens."""
    url = urlsplit(process.url)
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


@pytest.mark.parametrize("way", ["http", "websocket"])
@pytest.mark.parametrize("store", [True, False])
async def test_a_session_outlives_its_gateway(way: Literal["http", "websocket"], store: bool, tmp_path: Path) -> None:
    """Nobody knows what became of the turn that ran: its keys and events went with the process. All else is there."""
    async with serving(tmp_path, *STORE, gated=True) as first:
        async with proxied(*address(first)) as proxy, AsyncClient(proxy.base_url, transport=way) as client:
            session = client.session(model="scripted", store=store)
            before = await session.send("one").response()
            turn = session.send("two", model="gated")
            async for event in turn:
                if isinstance(event, OutputTextDelta):
                    assert event.delta == HALF
                    break
            first.kill()
            async with serving(tmp_path, *STORE, gated=True) as second:
                proxy.target = address(second)
                proxy.cut()
                with pytest.raises(OutcomeUnknownError) as unknown:
                    await turn.response()
                assert unknown.value.response_id is not None
                assert len(session.history) == 2
                second.release()
                answer = await session.send("two", model="gated").response()
                await session.send("three").response()
        assert answer.output_text == HALF + REST
        contents = [item["content"] for item in items_of(session.history)]
        assert [content if isinstance(content, str) else content[0]["text"] for content in contents] == [
            *("one", before.output_text, "two", HALF + REST, "three", before.output_text),
        ]
        assert session.meters.resumes == session.meters.repeats == 0
