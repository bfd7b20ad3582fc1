from __future__ import annotations

from segue.tunnel.folds.fold import Fold
from tests.tunnel import replies

HEAD = b'},{"role":"model","parts":['


def fold(stream: bytes) -> bytes:
    folded = Fold(b"text/event-stream")
    folded.feed(stream)
    return folded.value


def test_parts_fold_to_what_a_request_repeats() -> None:
    stream = replies.gemini(
        {"text": "Hm.", "thought": True},
        {"text": 'He said "no" & <left>.'},
        {"functionCall": {"name": "read", "args": {"path": "a"}}, "thoughtSignature": "CtAB"},
    )
    assert fold(stream) == HEAD + (
        b'{"thought":true,"text":"Hm."},{"text":"He said \\"no\\" & <left>."},'
        b'{"functionCall":{"name":"read","args":{"path":"a"}},"thoughtSignature":"CtAB"},]}'
    )


def test_escapes_and_white_space_of_the_provider_are_not_kept() -> None:
    stream = b'data: {"candidates": [{"content": {"parts": [{"text": "a \\u003c b"}]}}]}\r\n\r\n'
    assert fold(stream) == HEAD + b'{"text":"a < b'


def test_a_signature_ends_the_text_it_signs() -> None:
    assert fold(replies.gemini({"text": "abcdef", "thoughtSignature": "Ct"}, {"text": "g"})) == HEAD + (
        b'{"text":"abcdef","thoughtSignature":"Ct"},{"text":"g"},]}'
    )


def test_chunks_without_content_are_nothing() -> None:
    assert fold(replies.event({"candidates": [{"finishReason": "STOP"}]}) + replies.event({"candidates": []})) == b""


def test_what_comes_behind_an_end_begins_another_message() -> None:
    one = replies.gemini({"text": "abc"})
    assert fold(one + one) == 2 * (HEAD + b'{"text":"abc"},]}')
