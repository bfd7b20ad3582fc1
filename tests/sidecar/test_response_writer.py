"""Replies on their way to a real agent, while the test decides what comes back of the exchange and when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from segue.http.error_replies import FailureCode
from segue.http.heads import Line, ReplyHead
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.arriving_reply import Ending
from segue.sidecar.link_status import LinkUnavailable
from segue.sidecar.response_writer import ResponseWriter, failure_of, is_repeatable, wait_for_head
from segue.sidecar.session import AgentExchange
from segue.sidecar.stats import Outcome, Stats, reply_bytes
from segue.tunnel.events import ExchangeReset, OutcomeUnknown, ReplyEnded
from segue.tunnel.folds.fold import Fold
from segue.tunnel.stream_compression import REPLY_WINDOW_LOG, StreamEncoder
from tests.sidecar.agents import GET, RawAgent, listening
from tests.sidecar.exchanges import STREAM, compressed, receive, scripted_exchange

EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":"stop"}]}\n\n'


class Writing:
    """One agent that waits for a reply, and what became of its writer."""

    def __init__(self, agent: RawAgent, exchange: AgentExchange) -> None:
        self.agent = agent
        self.exchange = exchange
        self.stats = Stats()
        self.writer: ResponseWriter | None = None
        self.result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> Outcome:
        return await asyncio.wait_for(self.result, 20)

    @property
    def sent(self) -> tuple[int, bytes]:
        assert self.writer is not None
        return self.writer.sent_bytes, self.writer.folded


@asynccontextmanager
async def writing(head: ReplyHead = STREAM, *, keep_bytes: int = 1024, request: bytes = GET) -> AsyncIterator[Writing]:
    exchange = scripted_exchange(keep_bytes=keep_bytes)
    writings: list[Writing] = []

    async def handler(request: AgentRequest) -> None:
        writing = writings[0]
        writing.writer = ResponseWriter(request, exchange, writing.stats)
        try:
            writing.result.set_result(await writing.writer.write(head))
        except AgentGone as error:
            writing.result.set_exception(error)
            raise

    async with listening(handler) as listener:
        agent = await listener.connect()
        writings.append(Writing(agent, exchange))
        await agent.send(request)
        yield writings[0]


async def test_a_reply_is_written_as_it_comes_and_each_part_lets_more_come() -> None:
    encoder = StreamEncoder(REPLY_WINDOW_LOG)
    async with writing() as way:
        assert (await way.agent.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        for number in range(3):
            event = b"data: %d\n\n" % number
            receive(way.exchange, None, encoder.feed(event) + encoder.flush())
            assert await way.agent.until(event + b"\r\n") == b"9\r\n" + event + b"\r\n"
        receive(way.exchange, None, encoder.finish())
        way.exchange.end(ReplyEnded(way.exchange.handle))
        assert await way.agent.until(b"0\r\n\r\n") == b"0\r\n\r\n"
        assert await way.outcome() == "completed"
        assert way.exchange.consumed == way.exchange.log.end
        assert way.stats.agent_bytes_out == reply_bytes(STREAM) + 3 * 9
        assert way.sent[0] == 3 * 9


async def test_what_the_agent_was_sent_is_folded() -> None:
    async with writing() as way:
        receive(way.exchange, None, compressed(EVENTS))
        way.exchange.end(ReplyEnded(way.exchange.handle))
        assert await way.outcome() == "completed"
        fold = Fold(b"text/event-stream")
        fold.feed(EVENTS)
        assert way.sent == (len(EVENTS), fold.value)
        assert b"hello" in fold.value


async def test_a_large_reply_is_not_kept_once_it_was_written() -> None:
    body = random.Random(1).randbytes(300_000)
    async with writing(keep_bytes=1000, request=GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as way:
        receive(way.exchange, None, compressed(body))
        way.exchange.end(ReplyEnded(way.exchange.handle))
        assert (await way.agent.rest()).endswith(b"\r\n0\r\n\r\n")
        assert await way.outcome() == "completed"
        with pytest.raises(ValueError, match="released"):
            way.exchange.log.read(0)


async def test_a_reply_without_any_body_is_complete() -> None:
    async with writing(request=GET.replace(b"GET", b"HEAD")) as way:
        way.exchange.end(ReplyEnded(way.exchange.handle))
        assert await way.outcome() == "completed"
        assert way.sent == (0, b"")


@pytest.mark.parametrize("why", ["reset", "unknown", "no end of the stream", "no stream"])
async def test_a_reply_that_is_not_whole_is_cut(why: str) -> None:
    async with writing() as way:
        handle, whole = way.exchange.handle, compressed(b"data: 1\n\n")
        endings: dict[str, Ending] = {
            "reset": ExchangeReset(handle, "aborted", b"the provider cut it"),
            "unknown": OutcomeUnknown(handle),
        }
        if why == "no stream":
            receive(way.exchange, None, b"these bytes are no zstd frame")
        else:
            receive(way.exchange, None, whole[:-3] if why == "no end of the stream" else whole)
            way.exchange.end(endings.get(why, ReplyEnded(handle)))
        assert await way.outcome() == "cut"
        assert not (await way.agent.rest()).endswith(b"0\r\n\r\n")


def push(exchange: AgentExchange, head: ReplyHead | None, data: bytes) -> bool:
    """Let parts of a reply come back as `receive` does; return whether they were passed on in this call."""
    exchange.head = head or exchange.head
    exchange.log.write(data)
    exchange.changed.clear()
    exchange.tell_change()
    return not exchange.changed.is_set()


@asynccontextmanager
async def waiting(head: ReplyHead = STREAM, *, request: bytes = GET) -> AsyncIterator[Writing]:
    """An agent whose request waits for its reply, which is passed on as soon as it comes."""
    exchange, writings = scripted_exchange(), list[Writing]()

    async def handler(request: AgentRequest) -> None:
        writing = writings[0]
        writing.writer = ResponseWriter(request, exchange, writing.stats)
        exchange.pass_on = writing.writer.pass_on
        begun.set()
        try:
            assert await wait_for_head(request, exchange) == head
            writing.result.set_result(await writing.writer.write(head))
        except (AgentGone, ValueError) as error:
            writing.result.set_exception(error)
            raise AgentGone from error

    begun = asyncio.Event()
    async with listening(handler) as listener:
        agent = await listener.connect()
        writings.append(Writing(agent, exchange))
        await agent.send(request)
        await begun.wait()
        yield writings[0]


async def test_what_comes_is_written_in_the_call_and_the_task_goes_on_with_the_rest() -> None:
    prefix = b"data: number\n\n" * 10
    encoder = StreamEncoder(REPLY_WINDOW_LOG, prefix=prefix)
    async with waiting(request=GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as way:
        exchange, writer = way.exchange, way.writer
        assert writer is not None
        assert not push(exchange, None, b"")  # nothing has come
        writer.prepare(prefix)
        exchange.prefix = prefix
        assert not push(exchange, STREAM, encoder.feed(b"data: 0\n\n") + encoder.flush())  # the task begins too
        assert (writer.sent_bytes, exchange.consumed) == (9, exchange.log.end)
        await asyncio.sleep(0)
        assert push(exchange, None, encoder.feed(b"data: 1\n\n") + encoder.flush())
        assert writer.sent_bytes == 18
        assert not push(exchange, None, encoder.feed(b"x" * 300_000) + encoder.flush())  # more than one piece
        assert writer.sent_bytes == 18 + 64 * 1024
        push(exchange, None, encoder.feed(b"end") + encoder.flush())
        push(exchange, None, encoder.finish())
        exchange.end(ReplyEnded(exchange.handle))
        sent = await way.agent.rest()
        assert sent.endswith(b"3\r\nend\r\n0\r\n\r\n")
        assert b"9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n" in sent
        assert await way.outcome() == "completed"
        assert way.stats.agent_bytes_out == reply_bytes(STREAM) + writer.sent_bytes == reply_bytes(STREAM) + 300_021


async def test_what_cannot_be_expanded_is_cut_by_the_task() -> None:
    async with waiting() as way:
        assert not push(way.exchange, STREAM, b"these bytes are no zstd frame")
        assert await way.outcome() == "cut"


async def test_a_head_that_cannot_be_sent_is_a_fault_of_its_request_alone() -> None:
    head = ReplyHead(200, b"OK", (Line(b"X", b"a\r\nY: b"),))
    async with waiting(head) as way:
        assert not push(way.exchange, head, compressed(b"x"))
        with pytest.raises(ValueError, match="cannot be sent"):
            await way.outcome()


async def test_nothing_is_written_for_an_agent_that_does_not_read_or_has_gone() -> None:
    async with waiting() as way:
        push(way.exchange, STREAM, b"")
        encoder, filler = StreamEncoder(REPLY_WINDOW_LOG), random.Random(1)
        await asyncio.sleep(0)
        while push(way.exchange, None, encoder.feed(filler.randbytes(50_000)) + encoder.flush()):
            pass
        assert way.writer is not None
        sent = way.writer.sent_bytes
        assert not push(way.exchange, None, encoder.feed(b"more") + encoder.flush())
        assert way.writer.sent_bytes == sent
        way.agent.reset()
        with pytest.raises(AgentGone):
            await way.outcome()
        assert not push(way.exchange, None, encoder.feed(b"more") + encoder.flush())


async def test_an_agent_that_hangs_up_ends_the_writing_at_once() -> None:
    async with writing() as way:
        await way.agent.head()
        way.agent.reset()
        with pytest.raises(AgentGone):
            await way.outcome()
        assert way.exchange.ending is None  # whether it is given up is not the writer's to decide


async def test_waiting_for_a_head_ends_with_the_head_the_ending_or_the_agent() -> None:
    exchanges = [scripted_exchange() for _ in range(3)]
    found: list[ReplyHead | Ending | type[AgentGone]] = []
    done = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
        found.append(await wait_for_head(request, exchanges[0]))
        found.append(await wait_for_head(request, exchanges[1]))
        try:
            await wait_for_head(request, exchanges[2])
        except AgentGone:
            found.append(AgentGone)
            with pytest.raises(AgentGone):
                await wait_for_head(request, exchanges[2])  # and so does one that begins after it
            done.set()
            raise

    ending = OutcomeUnknown(exchanges[1].handle)
    async with listening(handler) as listener:
        agent = await listener.connect()
        await agent.send(GET)
        receive(exchanges[0], STREAM)
        exchanges[1].end(ending)
        agent.hang_up()
        await asyncio.wait_for(done.wait(), 20)
    assert found == [STREAM, ending, AgentGone]


@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        (LinkUnavailable("segue_invalid_key", "who are you?"), "segue_invalid_key", "who are you?"),
        (OutcomeUnknown(1), "segue_outcome_unknown", "is gone"),
        (ExchangeReset(1, "not_forwarded", b"too many"), "segue_overloaded", "did not take the request: too many."),
        (ExchangeReset(1, "refused", b""), "segue_gateway_refused", "refused the request: it does not say why."),
        (
            ExchangeReset(1, "aborted", b"\xff"),
            "segue_outcome_unknown",
            "gave the request up: \N{REPLACEMENT CHARACTER}.",
        ),
        (ReplyEnded(1), "segue_gateway_refused", "without a reply"),
    ],
)
def test_each_ending_without_a_reply_is_an_error_for_the_agent(ending: Ending, code: FailureCode, says: str) -> None:
    found, message = failure_of(ending)
    assert is_repeatable(ending) == (code in {"segue_invalid_key", "segue_overloaded"})  # the others may be forwarded
    assert found == code
    assert says in message
