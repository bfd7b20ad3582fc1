"""What decoders have in common: how a reply ends that they did not end themselves."""

from __future__ import annotations

import pytest

from segue.dialects.interface import Output
from segue.dialects.reply_decoder import BaseReplyDecoder, TranslatingDecoder
from segue.dialects.sealed_reasoning import seal
from segue.protocol.events import Ended, Event
from segue.protocol.responses import Failure, usage
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import CHAT, DIALECTS, RESPONSE_ID, USER, Request, encode_items, replay, settings

SHORT = Failure("upstream_protocol_error", "The upstream's stream stopped before its end.")
BROKE = Failure("upstream_error", "The connection to the upstream broke before its answer was complete.")
SLOW = Failure("upstream_timeout", "Too slow.")


class Letters(TranslatingDecoder):
    """An API whose events are letters; full stop: why the model stops, dash: it was cut off, colon: the usage."""

    def read(self, letter: str) -> Output:
        if letter == ":":
            self._counted = True
            return []
        if letter in {".", "-", " "}:
            self._stop({".": "stop", "-": "cut", " ": ""}[letter], {"cut": "max_output_tokens"})
            return []
        if self._stop_reason is not None:
            self._go_on()
        return [*self._writer.text(letter)] if letter.islower() else [*self._seal({"letter": letter})]

    def _finish(self) -> Output:
        cut = "max_output_tokens" if self._stop_reason == "cut" else None
        return [*self._writer.end("completed" if cut is None else "incomplete"), *self._stream_end.finished(cut, None)]


def letters() -> Letters:
    return Letters(RESPONSE_ID, CHAT, warnings=("lost",))


def test_a_reply_that_stops_before_its_end_fails_the_turn_once() -> None:
    for truncated, failure in ((False, SHORT), (True, BROKE)):
        for decoder in (BaseReplyDecoder(CHAT, ("lost",)), letters()):
            before = decoder.ended
            assert decoder.end(truncated=truncated) == [Ended("failed", None, failure, None, ("lost",))]
            assert (before, decoder.ended) == (False, True)
            assert decoder.end(truncated=truncated) == decoder.fail(SLOW) == []


def test_the_shell_may_fail_the_turn_for_a_reason_of_its_own() -> None:
    for decoder in (BaseReplyDecoder(CHAT, ("lost",)), letters()):
        assert decoder.fail(SLOW) == [Ended("failed", None, SLOW, None, ("lost",))]
        assert decoder.end() == []


def test_a_reply_that_stops_after_the_model_said_why_is_whole() -> None:
    for truncated in (False, True):
        decoder = letters()
        assert len(decoder.read("a")) == 3
        decoder.read(".")
        *events, ended = decoder.end(truncated=truncated)
        assert len(events) == 3
        assert ended == Ended("completed", usage(0, 0), None, None, ("lost",))
        assert decoder.end() == []


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("a.b.", "completed"),
        ("a.b", "failed"),
        ("a-b.", "completed"),
        ("a-.", "incomplete"),
        ("a.-", "incomplete"),
        ("a ", "failed"),
        ("a. ", "completed"),
    ],
)
def test_the_last_reason_counts_unless_the_answer_goes_on(said: str, status: str) -> None:
    decoder = letters()
    for letter in said:
        decoder.read(letter)
    *_, ended = decoder.end()
    assert isinstance(ended, Ended)
    assert ended.status == status


@pytest.mark.parametrize(
    ("said", "awaited"), [("a:", "answer"), ("a.", "usage"), ("a.:", "end"), ("a.:b", "answer"), ("a.b.:", "usage")]
)
def test_a_server_that_stopped_too_early_once_is_not_believed_again(said: str, awaited: str) -> None:
    decoder = letters()
    for letter in said:
        decoder.read(letter)
    assert decoder.awaited == awaited
    assert BaseReplyDecoder(CHAT, ()).awaited == "answer"


def test_what_is_sealed_says_whose_it_is() -> None:
    *_, done = letters().read("A")
    assert isinstance(done, Event)
    assert parse_json(done.item.decode())["encrypted_content"] == seal(CHAT, '{"letter":"A"}')


@pytest.mark.parametrize("name", DIALECTS)
def test_what_the_request_left_out_is_told_at_the_end_of_its_reply(name: str) -> None:
    request = Request(replay(encode_items([USER])), settings())
    *_, ended = DIALECTS[name].decoder(request, ("lost",)).end()
    assert isinstance(ended, Ended)
    assert ended.warnings == ("lost",)
