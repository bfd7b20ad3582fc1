"""The provider answers in both APIs, and tells which turns and answers a request showed it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.bench.peers.provider import PeerProvider, SeenHistory, forget_requests, user_mark
from segue.testing.provider import Answer, ReceivedRequest, provided

CHAIN = "0123abcd"


def request(target: str, body: object = None, method: str = "POST") -> ReceivedRequest:
    head = f"{method} {target} HTTP/1.1\r\n\r\n".encode()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ReceivedRequest(number=0, connection=0, raw_head=head, raw_body=b"", body=data)


def text_of(answer: Answer) -> str:
    return b"".join(answer.pieces).decode()


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions?a=1"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_has_the_mark_of_its_turn(path: str, stream: bool) -> None:
    script = PeerProvider()
    messages = [f"{user_mark(CHAIN, 1)} Hi.", "mark-a-0123abcd-00001 OK.", f"{user_mark(CHAIN, 2)} Go on."]
    answer = script(request(path, {"model": "m", "stream": stream, "messages": messages}))
    assert answer.status == 200
    if not stream:
        assert "mark-a-0123abcd-00002 Here is" in text_of(answer)
    assert ("data: " in text_of(answer)) == stream
    seen = script.take(CHAIN)
    assert seen is not None
    assert (seen.turns, seen.answers, seen.whole(2), seen.whole(3)) == (2, 1, True, False)
    assert script.take(CHAIN) is None


def test_other_chains_do_not_count() -> None:
    script = PeerProvider()
    script(request("/v1/responses", {"input": [user_mark(CHAIN, 1)]}))
    seen = script.take("ffffffff")
    assert seen is not None
    assert (seen.turns, seen.answers) == (0, 0)


def test_a_turn_that_was_sent_twice_counts_once() -> None:
    script = PeerProvider()
    script(request("/v1/responses", {"input": [user_mark(CHAIN, 1)] * 2}))
    seen = script.take(CHAIN)
    assert seen is not None
    assert seen.whole(1)
    assert not SeenHistory(1, 1, 0).whole(1)


@pytest.mark.parametrize(
    ("target", "method", "body", "status"),
    [
        ("/v1/models", "GET", None, 200),
        ("/health", "GET", None, 200),
        ("/elsewhere", "GET", None, 404),
        ("/v1/embeddings", "POST", {}, 404),
        ("/v1/responses", "POST", b"{", 404),
        ("/v1/responses", "POST", {}, 200),
    ],
)
def test_what_else_is_asked(target: str, method: str, body: Any, status: int) -> None:  # noqa: ANN401 - any JSON
    assert PeerProvider()(request(target, body, method)).status == status


async def test_requests_are_forgotten() -> None:
    async with provided(PeerProvider()) as provider:
        provider.requests.append(request("/health"))
        provider.answered.add(0)
        forget_requests(provider)
        assert (provider.requests, provider.answered) == ([], set())
