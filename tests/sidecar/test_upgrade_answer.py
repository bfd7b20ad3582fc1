"""Which answers to the upgrade are the gateway's own, and what is told of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.gateway.error_mapping import REPLIES
from segue.http.error_replies import FailureCode
from segue.sidecar.upgrade_answer import VERDICTS, UpgradeVerdict, explain, read_answer


def body(kind: str, code: str | None, message: str = "because") -> bytes:
    return json.dumps({"error": {"type": kind, "code": code, "message": message, "param": None}}).encode()


def test_the_table_says_what_gateways_say() -> None:
    told = {(reply.status, reply.kind, code) for code, reply in REPLIES.items()}
    assert set(VERDICTS) <= told


@pytest.mark.parametrize(("answer", "verdict"), VERDICTS.items())
def test_a_gateway_decides(answer: tuple[int, str, str], verdict: FailureCode) -> None:
    status, kind, code = answer
    assert read_answer(status, body(kind, code, "a\nreason\x1b")) == UpgradeVerdict(verdict, "a reason ")


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (200, b"<html>Sign in to the Wi-Fi</html>", "status 200"),
        (403, b"<html>", "status 403"),
        (404, b"", "status 404"),
        (429, b"slow down", "status 429"),
        (502, b"\xff\xfe", "status 502"),
        (401, b"[" * 100_000, "status 401"),
        (401, b'{"error": "Unauthorized"}', "status 401"),
        (401, body("invalid_request_error", "invalid_api_key"), "because"),  # the same code in another API
        (401, body("auth_error", None), "because"),
        (404, body("authentication_error", "invalid_api_key"), "because"),  # not with this status
        (503, body("server_error", "server_overloaded"), "because"),  # it drains
        (302, b"", "redirects to another address"),
        (307, body("authentication_error", "invalid_api_key"), "redirects to another address"),
    ],
)
def test_anything_else_means_that_there_is_no_link_yet(status: int, answer: bytes, words: str) -> None:
    read = read_answer(status, answer)
    assert read.verdict is None
    assert words in read.reason


@given(st.integers(200, 599), st.binary(max_size=200))
def test_whatever_answers_is_read(status: int, answer: bytes) -> None:
    assert read_answer(status, answer).verdict is None


@pytest.mark.parametrize(("has_key", "words"), [(True, "does not know the sidecar's key"), (False, "has none")])
def test_a_wrong_key_is_told_apart_from_the_providers(has_key: bool, words: str) -> None:
    told = explain("segue_invalid_key", "Incorrect API key provided.", has_key=has_key)
    assert words in told
    assert "SEGUE_SIDECAR_KEY or with --key" in told
    assert not told.startswith("Incorrect")


def test_another_refusal_is_in_the_gateways_words() -> None:
    assert explain("segue_gateway_refused", "another version", has_key=True) == "The gateway refused: another version"
