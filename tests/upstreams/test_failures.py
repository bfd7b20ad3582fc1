"""What the failures of attempts mean: refusals by providers, and requests without a reply."""

from __future__ import annotations

import ssl
from typing import Any, get_args
from unittest.mock import Mock

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.key_redaction import KeyRedactor
from segue.protocol.events import Ended
from segue.protocol.problems import Code, Problem
from segue.protocol.responses import Failure, usage
from segue.upstreams.failures import failure_without_reply, read_refusal, read_request_id, tell_end
from segue.upstreams.retries import FailedAttempt

CODES = frozenset(get_args(Code))


def read(status: int, body: object = b"", *, clients_key: bool = False, **headers: str) -> FailedAttempt:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_refusal("acme", status, named, raw, clients_key=clients_key, now=0.0)


def openai(code: str | None, kind: str | None = None, message: str = "No.") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(kind: str, message: str = "No.") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@pytest.mark.parametrize(
    ("status", "body", "code", "transient"),
    [
        (400, openai("context_length_exceeded", "invalid_request_error"), "context_length_exceeded", False),
        (400, openai("invalid_value", "invalid_request_error"), "upstream_rejected", False),
        (404, openai("model_not_found", "invalid_request_error"), "model_not_found", False),
        (429, openai("rate_limit_exceeded", "tokens"), "rate_limit_exceeded", True),
        (429, openai("insufficient_quota", "insufficient_quota"), "insufficient_quota", False),
        (500, openai(None, "server_error"), "upstream_error", True),
        (503, openai("slow_down", "server_error"), "server_overloaded", True),
        (400, anthropic("invalid_request_error"), "upstream_rejected", False),
        (404, anthropic("not_found_error"), "model_not_found", False),
        (413, anthropic("request_too_large"), "upstream_rejected", False),
        (429, anthropic("rate_limit_error"), "rate_limit_exceeded", True),
        (500, anthropic("api_error"), "upstream_error", True),
        (529, anthropic("overloaded_error"), "server_overloaded", True),
        (400, {"error": {"code": 400, "type": "exceed_context_size_error"}}, "context_length_exceeded", False),
        (400, {"object": "error", "message": "No.", "type": "BadRequestError"}, "upstream_rejected", False),
        (422, {"detail": "No."}, "upstream_rejected", False),
        (400, openai("segue_outcome_unknown", "api_error"), "upstream_timeout", False),
        (424, openai("upstream_closed", "api_error"), "upstream_timeout", False),
        (502, b"<html>Bad Gateway</html>", "upstream_error", True),
        (408, b"", "upstream_timeout", True),
        (504, b"", "upstream_timeout", False),
        (524, b"", "upstream_error", False),
        (500, anthropic("timeout_error"), "upstream_timeout", False),
        (200, {"id": "chatcmpl-1", "choices": []}, "upstream_protocol_error", False),
        (200, openai("rate_limit_exceeded"), "rate_limit_exceeded", True),
        (200, {"error": {"message": "No.", "code": 429}}, "rate_limit_exceeded", True),
        (200, {"error": {"message": "No.", "code": "402"}}, "insufficient_quota", False),
        (200, {"error": "boom"}, "upstream_error", False),
        (200, {"id": "1", "choices": [{"message": {"content": "Hi"}}]}, "upstream_protocol_error", False),
        (200, b"<html>Hello</html>", "upstream_protocol_error", False),
        (200, b"", "upstream_protocol_error", False),
        (402, openai(None, "invalid_request_error"), "insufficient_quota", False),
        (400, {"error": {"message": "prompt too long; exceeded max context length"}}, "context_length_exceeded", False),
        (301, b"", "upstream_error", False),
        (418, b"", "upstream_rejected", False),
        (599, b"", "upstream_error", False),
        (999, b"", "upstream_error", False),
    ],
)  # fmt: skip
def test_refusals_are_called_by_our_codes(status: int, body: object, code: Code, *, transient: bool) -> None:
    """The error in the body decides; without one, the status does."""
    failed = read(status, body)
    assert (failed.problem.code, failed.transient) == (code, transient)


def test_the_message_is_told_on_one_line_and_not_at_length() -> None:
    assert read(400, openai(None, message="a\n  b")).problem.message == "The upstream 'acme' answered 400: a b"
    assert read(400, {"error": "plain"}).problem.message == "The upstream 'acme' answered 400: plain"
    assert read(400).problem.message == "The upstream 'acme' answered 400."
    assert read(200, b"<html>").problem.message == "The upstream 'acme' answered 200 without a stream."
    assert len(read(400, openai(None, message="x" * 10_000)).problem.message) < 700


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_said_of_the_gateways_key_stays_here(status: int) -> None:
    """The provider's message may contain a part of the key."""
    body = openai("invalid_api_key", message="Incorrect API key provided: sk-secr****et.")
    failed = read(status, body)
    expected = "The upstream 'acme' does not accept the gateway's key."
    assert failed == FailedAttempt(Problem("upstream_unauthorized", expected), elsewhere=True, unhealthy=True)


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_said_of_a_clients_key_is_told_to_it(status: int) -> None:
    failed = read(status, openai("invalid_api_key", message="Incorrect key."), clients_key=True)
    assert failed == FailedAttempt(Problem("invalid_api_key", f"The upstream 'acme' answered {status}: Incorrect key."))


@pytest.mark.parametrize(
    ("status", "body", "elsewhere", "unhealthy", "clients"),
    [
        (429, openai("rate_limit_exceeded"), True, True, False),
        (429, openai("insufficient_quota"), True, True, False),
        (402, {}, True, True, False),
        (404, openai("model_not_found"), True, False, False),
        (408, {}, True, True, True),
        (500, {}, True, True, True),
        (503, {}, True, True, True),
        (529, openai("overloaded_error"), True, True, True),
        (504, {}, False, True, True),
        (400, openai("invalid_value"), False, False, False),
        (400, openai("context_length_exceeded"), False, False, False),
        (413, {}, False, False, False),
        (200, b"<html>", False, True, True),
    ],
)
def test_a_refusal_says_whether_another_upstream_may_have_the_turn(
    status: int, body: object, elsewhere: bool, unhealthy: bool, clients: bool
) -> None:
    """Only if nothing was generated; 504 does not prove that. What speaks against a client's key is not counted."""
    ours, theirs = read(status, body), read(status, body, clients_key=True)
    assert (ours.elsewhere, ours.unhealthy) == (elsewhere, unhealthy)
    assert (theirs.elsewhere, theirs.unhealthy) == (elsewhere, clients)


def test_a_provider_that_forbids_another_attempt_is_obeyed_elsewhere_too() -> None:
    """It may know that it has begun."""
    failed = read_refusal("acme", 500, {"x-should-retry": "false"}, b"{}", clients_key=False, now=0.0)
    assert (failed.transient, failed.elsewhere, failed.unhealthy) == (False, False, True)


KEY = "sk-proj-abcd1234efgh5678wxyz"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, openai(None, message=f"The key sk-proj-abcd****wxyz may not use this model, nor {KEY}.")),
        (429, openai("rate_limit_exceeded", message="Limit reached for the key ending in wxyz.")),
        (429, openai("insufficient_quota", message="No credit: ...wxyz")),
        (500, {"error": f"could not look up abcd1234efgh in {KEY.upper()}"}),
        (404, {"detail": f"https://example.com/?key={KEY}"}),
    ],
)
def test_no_part_of_a_key_is_told(status: int, body: object) -> None:
    raw = msgspec.json.encode(body)
    for clients_key in (False, True):
        failed = read_refusal("acme", status, {}, raw, clients_key=clients_key, now=0.0, redactor=KeyRedactor([KEY]))
        assert "[redacted]" in failed.problem.message
        assert not any(part in failed.problem.message.lower() for part in ("abcd", "wxyz", "efgh"))


def test_a_code_that_clients_know_is_told_as_it_is() -> None:
    """And the status is that of ours."""
    known, unknown = (read(400, openai(code, "invalid_request_error")) for code in ("invalid_prompt", "invalid_value"))
    assert (known.problem.code, known.problem.told_code) == ("upstream_rejected", "invalid_prompt")
    assert (unknown.problem.code, unknown.problem.told_code) == ("upstream_rejected", "upstream_rejected")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***yz."}),
        (400, {"error": {"code": 400, "message": "API key not valid.", "details": [{"reason": "API_KEY_INVALID"}]}}),
        (
            401,
            openai("invalid_request_error", "authentication_error", "Authentication Fails, Your api key: ****wxyz is"),
        ),
        (401, {"error": {"message": "Incorrect API key provided", "type": "incorrect_api_key_error"}}),
        (401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key wxyz."}}),
        (401, {"message": "Unauthorized wxyz", "request_id": "1"}),
        (401, {"detail": "Unauthorized wxyz"}),
        (401, {"error": {"message": "No auth credentials found", "code": 401}}),
        (401, {"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}}),
        (401, {"error": {"message": "Invalid API Key", "type": "invalid_request_error", "code": "invalid_api_key"}}),
        (
            403,
            {"error": {"object": "error", "type": "invalid_request_error", "message": "The API key wxyz is invalid."}},
        ),
        (400, {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "x"}),
        (200, {"base_resp": {"status_code": 1004, "status_msg": "login fail: wxyz"}}),
        (403, b"<html>Forbidden wxyz</html>"),
    ],
)
def test_every_providers_way_to_refuse_a_key_is_known(status: int, body: object) -> None:
    """And nothing of it is told, unless the key is the client's own."""
    assert read(status, body) == FailedAttempt(
        Problem("upstream_unauthorized", "The upstream 'acme' does not accept the gateway's key."),
        elsewhere=True,
        unhealthy=True,
    )
    assert read(status, body, clients_key=True).problem.code == "invalid_api_key"


def test_the_end_of_a_stream_is_told_like_a_refusal() -> None:
    redactor = KeyRedactor([KEY])

    def told(ended: Ended, *, clients_key: bool = False, ours: tuple[str, ...] = ()) -> Ended:
        return tell_end(ended, "acme", clients_key=clients_key, redactor=redactor, ours=ours)

    unauthorized = Ended("failed", error=Failure("upstream_unauthorized", f"Not {KEY}."))
    hidden = Failure("upstream_unauthorized", "The upstream 'acme' does not accept the gateway's key.")
    assert told(unauthorized) == Ended("failed", error=hidden)
    assert told(unauthorized, clients_key=True) == Ended("failed", error=Failure("invalid_api_key", "Not [redacted]."))
    slow = Ended("failed", usage(1, 2), Failure("rate_limit_exceeded", "…wxyz"), retry_after_s=3.0)
    assert told(slow) == msgspec.structs.replace(slow, error=Failure("rate_limit_exceeded", "[redacted]"))
    assert told(Ended("failed", error=Failure(KEY, "x"))).error == Failure("upstream_error", "x")
    assert told(Ended("failed", error=Failure("x" * 65, "x"))).error == Failure("upstream_error", "x")
    assert told(Ended("failed", error=Failure("vector_store_timeout", "x"))).error == Failure(
        "vector_store_timeout", "x"
    )
    assert told(Ended("incomplete", incomplete_reason=KEY)).incomplete_reason == "max_output_tokens"
    assert told(Ended("incomplete", incomplete_reason="content_filter")).incomplete_reason == "content_filter"
    warned = told(Ended("completed", warnings=(f"{KEY} is ours", f"{KEY} is not")), ours=(f"{KEY} is ours",))
    assert warned.warnings == (f"{KEY} is ours", "[redacted] is not")
    plain = Ended("completed", usage(1, 2), warnings=("ours",))
    assert told(plain, ours=("ours",)) is plain


def test_a_providers_id_of_the_request_is_not_logged_if_it_holds_a_key() -> None:
    assert read_request_id({"x-request-id": f"req_{KEY}"}, KeyRedactor([KEY])) == ""
    assert read_request_id({"x-request-id": "req_1"}, KeyRedactor([KEY])) == "req_1"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, None),
        ("temperature", "temperature"),
        ("x" * 999, "x" * 200),
        (7, None),
        ("sk-abcdefghijklmn", "[redacted]"),
    ],
)
def test_the_field_at_fault_is_told(given: object, told: str | None) -> None:
    body = {"error": {"message": "No.", "type": "invalid_request_error", "param": given}}
    assert read(400, body).problem.param == told


def test_when_to_come_back_is_kept() -> None:
    assert read(429, retry_after="7").problem.retry_after_s == 7.0
    assert read(529, retry_after_ms="250").problem.retry_after_s == 0.25
    assert read(429).problem.retry_after_s is None
    told = {"error": {"code": 429, "message": "Slow.", "details": [{"retryDelay": "34s"}]}}
    assert read(429, told).problem.retry_after_s == 34.0, "Gemini has no header"
    assert read(429, told, retry_after="7").problem.retry_after_s == 7.0


def test_a_provider_may_say_itself_whether_to_try_again() -> None:
    """As the SDKs of OpenAI and Anthropic read it."""
    for status, advice, transient, repeat in (
        (500, "false", False, "paid"),
        (408, "false", False, "paid"),
        (429, "false", False, "futile"),
        (503, "false", False, "futile"),
        (402, "false", False, "futile"),
        (400, "true", True, "free"),
        (504, "true", True, "free"),
        (500, "maybe", True, "futile"),
        (502, "", True, "futile"),
        (504, "", False, None),
        (524, "", False, None),
        (400, "", False, None),
    ):
        failed = read(status, x_should_retry=advice)
        assert (failed.transient, failed.problem.repeat) == (transient, repeat)


@pytest.mark.parametrize("status", [400, 424])
@pytest.mark.parametrize(
    ("code", "kind", "read_as"),
    [
        ("upstream_timeout", "server_error", "upstream_timeout"),
        ("upstream_error", "server_error", "upstream_error"),
        ("upstream_unreachable", "server_error", "upstream_error"),
        ("server_overloaded", "server_error", "server_overloaded"),
        ("segue_internal_error", "api_error", "upstream_error"),
        ("invalid_value", "invalid_request_error", "upstream_rejected"),
    ],
)
def test_a_gateway_may_say_with_the_status_of_a_refusal_that_the_turn_may_have_run(
    status: int, code: str, kind: str, read_as: str
) -> None:
    """It is told on so, and nothing is learned from it about fields."""
    told = {"code": code, "type": kind, "message": "Unknown parameter: 'include'.", "param": "include"}
    body = msgspec.json.encode({"error": told})
    advice, fields = {"x-should-retry": "false"}, frozenset({"include"})
    failed = read_refusal("acme", status, advice, body, clients_key=False, now=0.0, own_fields=fields)
    assert (failed.problem.code, failed.problem.repeat) == (read_as, "paid")
    assert not failed.transient
    assert not failed.elsewhere
    assert bool(failed.refused_fields) == (read_as == "upstream_rejected" and status == 400)


def test_a_request_that_did_not_arrive_was_not_carried_out() -> None:
    """RFC 9110, 15.5.9; a 504 may come from a proxy whose server is still at work."""
    assert (read(408).problem.repeat, read(504).problem.repeat) == ("free", None)


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({"x_request_id": "req_1"}, "req_1"),
        ({"request_id": "req_2"}, "req_2"),
        ({"x_request_id": "a b"}, ""),
        ({"x_request_id": "a\nb"}, ""),
        ({"x_request_id": "x" * 81}, ""),
        ({}, ""),
    ],
)
def test_a_providers_id_of_the_request_is_kept_for_the_log(headers: dict[str, str], known: str) -> None:
    """Only an id that is safe to log is kept."""
    assert read(500, clients_key=False, **headers).request_id == known
    assert read(401, clients_key=False, **headers).request_id == known


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "code", "type", "message", "detail", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.integers(100, 999), st.binary(max_size=60) | JSON.map(msgspec.json.encode))
def test_no_refusal_is_stumbled_over(status: int, body: bytes) -> None:
    failed = read(status, body)
    assert failed.problem.code in CODES
    assert failed.problem.message.isprintable() or "\n" not in failed.problem.message


_KEY = Mock(host="example.org", port=443, ssl=True)
_CLOSED = "The upstream 'acme' closed the connection before it answered."
_SELF_SIGNED = ssl.SSLCertVerificationError("self-signed")
_REFUSED = ConnectionRefusedError(111, "Connect call failed ('10.0.0.7', 8080)")


def _caused(error: aiohttp.ClientConnectorError, cause: OSError) -> aiohttp.ClientConnectorError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "message", "transient", "cause"),
    [
        (
            aiohttp.ConnectionTimeoutError(),
            "upstream_unreachable",
            "No connection to the upstream 'acme' within 1.5 s.",
            True,
            "",
        ),
        (
            _caused(aiohttp.ClientConnectorCertificateError(_KEY, _SELF_SIGNED), _SELF_SIGNED),
            "upstream_unreachable",
            "The upstream 'acme' cannot be trusted: its certificate is not accepted.",
            False,
            "its certificate is not accepted",
        ),
        (
            _caused(aiohttp.ClientConnectorSSLError(_KEY, OSError(1, "x")), ssl.SSLError(1, "[SSL] WRONG_VERSION")),
            "upstream_unreachable",
            "The upstream 'acme' cannot be trusted: no TLS connection comes about.",
            False,
            "no TLS connection comes about",
        ),
        (
            _caused(aiohttp.ClientConnectorError(_KEY, _REFUSED), _REFUSED),
            "upstream_unreachable",
            "The upstream 'acme' cannot be reached: it refuses connections.",
            True,
            "it refuses connections; is it running, at this port?",
        ),
        (TimeoutError(), "upstream_timeout", "The upstream 'acme' did not answer within 30 s.", False, ""),
        (
            aiohttp.ClientPayloadError("bad chunk"),
            "upstream_protocol_error",
            "What the upstream 'acme' answered is not valid HTTP.",
            False,
            "",
        ),
    ],
)
def test_without_a_reply_the_error_says_what_failed(
    error: OSError | aiohttp.ClientError, code: Code, message: str, cause: str, *, transient: bool
) -> None:
    """Only failures before the provider can have begun to work are transient. No address of the provider is told."""
    for sent in (False, True):
        failed = failure_without_reply("acme", error, sent=sent, connect_timeout_s=1.5, first_byte_timeout_s=30.0)
        elsewhere = transient or "cannot be trusted" in message  # nothing was sent, but it would fail here again
        plain = msgspec.structs.replace(failed, cause="")
        assert plain == FailedAttempt(Problem(code, message), transient=transient, elsewhere=elsewhere, unhealthy=True)
        assert failed.cause.startswith(cause)
        assert bool(failed.cause) == bool(cause)


@pytest.mark.parametrize("error", [aiohttp.ServerDisconnectedError(), ConnectionResetError()])
@pytest.mark.parametrize("sent", [True, False])
def test_a_connection_that_breaks_before_the_answer_is_transient_if_the_request_was_not_sent_whole(
    error: OSError | aiohttp.ClientError, *, sent: bool
) -> None:
    """Otherwise the provider may have carried it out."""
    failed = failure_without_reply("acme", error, sent=sent, connect_timeout_s=1.5, first_byte_timeout_s=30.0)
    problem = Problem("upstream_unreachable", _CLOSED, repeat="paid" if sent else "free")
    assert failed == FailedAttempt(problem, transient=not sent, elsewhere=not sent, unhealthy=True)
