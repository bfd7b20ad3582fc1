"""What the failure of an attempt means: what to tell the client, and whether the failure is transient.

An attempt fails without a reply (`failure_without_reply`), with a reply that is no stream (`read_refusal`), or within
its stream (`tell_end`). A failure also says whether another upstream may have the turn, and whether it speaks against
this one. Which of our codes a provider's error stands for is one table, `dialects.provider_errors`; this
module adds what the status and the headers say. A provider's message goes to the client, whose request it is about,
without any part of a key, and never to a log. What it says about the gateway's own key goes to nobody. Not here: when
to attempt again (`retries`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import aiohttp
import msgspec

from segue.connection_failures import connection_failure
from segue.dialects.error_shapes import find_error, read_error
from segue.dialects.key_redaction import KeyRedactor
from segue.dialects.provider_errors import ProviderError, code_of, code_of_word, documented_code
from segue.dialects.refused_fields import refused_fields
from segue.http.error_replies import UNREPEATABLE_STATUSES
from segue.http.retry_after import read_retry_after
from segue.protocol.events import Ended
from segue.protocol.problems import Code, Problem, Repeat
from segue.protocol.responses import Failure
from segue.upstreams.retries import FailedAttempt

_WORD = re.compile(r"[a-z0-9_]{1,64}")
_REQUEST_ID = re.compile(r"[0-9A-Za-z_.:-]{1,80}")

#: How much of a refusal's body is read, and how much of its message the client gets.
MAX_REFUSAL_BYTES = 64 * 1024
_MAX_MESSAGE_CHARS = 600
_MAX_PARAM_CHARS = 200

#: Codes of failures that are transient unless the provider says otherwise.
TRANSIENT: frozenset[Code] = frozenset({"rate_limit_exceeded", "server_overloaded", "upstream_error"})
#: Codes that mean a transient failure whatever the status is.
_BUSY: frozenset[Code] = frozenset({"rate_limit_exceeded", "server_overloaded"})
#: Not among them: 504. A proxy has given up waiting, and the server behind it may still be at work (RFC 9110, 15.6.5).
_TRANSIENT_STATUSES = frozenset({409, 425, 429, 500, 502, 503, 529})
#: Codes of refusals that another upstream may well not answer, although they are final here. Nothing was generated.
_ELSEWHERE: frozenset[Code] = frozenset({"insufficient_quota", "model_not_found"})
#: Codes of refusals that speak against a server, whoever asks.
_UNHEALTHY: frozenset[Code] = frozenset(
    {"server_overloaded", "upstream_error", "upstream_protocol_error", "upstream_timeout", "upstream_unreachable"}
)
#: Codes that speak against the gateway's own key at a server; a client's own key speaks for its client alone.
_KEYS: frozenset[Code] = frozenset({"rate_limit_exceeded", "insufficient_quota"})
#: The request did not arrive whole, so that it was not carried out (RFC 9110, 15.5.9).
_NOT_ARRIVED = 408


def read_refusal(
    name: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    clients_key: bool,
    now: float,
    own_fields: frozenset[str] = frozenset(),
    redactor: KeyRedactor | None = None,
) -> FailedAttempt:
    """Say what a refusal of the upstream called `name` means.

    `clients_key`: the client's own key was sent. `own_fields`: the fields that the gateway added to the request by
    itself. `redactor` knows the keys that were sent.
    """
    redactor = redactor or KeyRedactor()
    error = read_error(body)
    advice = headers.get("x-should-retry", "true" if status == _NOT_ARRIVED else "")
    code = code_of(error, status)
    if code == "upstream_rejected" and advice == "false" and status in UNREPEATABLE_STATUSES and _is_failure(error):
        code = "upstream_error"
    if status < 300 and find_error(body) is None:  # noqa: PLR2004 - a success, RFC 9110, 15.3
        code = "upstream_protocol_error"
    request_id = read_request_id(headers, redactor)
    if code == "upstream_unauthorized" and not clients_key:
        return FailedAttempt(_own_key_refused(name), request_id=request_id, elsewhere=True, unhealthy=True)
    if code == "upstream_unauthorized":
        code = "invalid_api_key"
    transient = code in TRANSIENT and (code in _BUSY or status in _TRANSIENT_STATUSES)
    what = " without a stream" if code == "upstream_protocol_error" else ""
    message = f"The upstream {name!r} answered {status}{what}{_quote(redactor.redact(error.message))}"
    after_s = read_retry_after(headers, now)
    after_s = error.retry_after_s if after_s is None else after_s
    param = None if error.param is None else redactor.redact(error.param[:_MAX_PARAM_CHARS])
    documented = documented_code(error, code)
    repeat = _repeat(code, status, advice)
    problem = Problem(code, message, param, retry_after_s=after_s, repeat=repeat, documented_code=documented)
    transient = {"true": True, "false": False}.get(advice, transient)  # as the SDKs of OpenAI and Anthropic read it
    return FailedAttempt(
        problem,
        transient=transient,
        request_id=request_id,
        refused_fields=refused_fields(status, body, own_fields) if _is_about_request(code, status) else frozenset(),
        elsewhere=transient or code in _ELSEWHERE,
        unhealthy=speaks_against_server(code, clients_key=clients_key),
        detail=error.detail,
    )


def _is_failure(error: ProviderError) -> bool:
    """Tell whether an error says by its first known word that the server has failed, whatever the status says.

    A gateway that must not be asked again has the status of a refusal beside it.
    """
    known = (code for word in error.words if (code := code_of_word(word)) is not None)
    return next(known, None) == "upstream_error"


def _is_about_request(code: Code, status: int) -> bool:
    """Tell whether a refusal may be about a field of its request, and not about a failure of the server."""
    return code != "upstream_timeout" and not (status in UNREPEATABLE_STATUSES and code in _UNHEALTHY)


def _repeat(code: Code, status: int, advice: str) -> Repeat | None:
    """Return what a repeat means, as far as the provider says so.

    A failure that the gateway tries again itself counts as not carried out; it has been tried often enough.
    """
    if advice != "false":
        tried = code == "upstream_error" and status in _TRANSIENT_STATUSES
        return "free" if advice == "true" else "futile" if tried else None
    not_run = code in _BUSY and status not in UNREPEATABLE_STATUSES
    return "futile" if not_run or code == "insufficient_quota" else "paid"


def speaks_against_server(code: str, *, clients_key: bool) -> bool:
    """Say whether a failure speaks against its server, so that many of them mean that it is out."""
    return code in _UNHEALTHY or (code in _KEYS and not clients_key)


def tell_end(ended: Ended, name: str, *, clients_key: bool, redactor: KeyRedactor, ours: Sequence[str] = ()) -> Ended:
    """Return the end of a stream of the upstream called `name` as it may be told, which is as a refusal is told.

    `ours` are the warnings that hold no words of the provider.
    """
    failure = ended.error
    if failure is None and ended.incomplete_reason is None and len(ended.warnings) == len(ours):
        return ended
    if failure is not None and failure.code == "upstream_unauthorized" and not clients_key:
        failure = Failure("upstream_unauthorized", _own_key_refused(name).message)
    elif failure is not None:
        code = "invalid_api_key" if failure.code == "upstream_unauthorized" else failure.code
        if not _WORD.fullmatch(code) or redactor.redact(code) != code:
            code = "upstream_error"
        failure = Failure(code, redactor.redact(failure.message))
    reason = ended.incomplete_reason
    if reason is not None and (not _WORD.fullmatch(reason) or redactor.redact(reason) != reason):
        reason = "max_output_tokens"
    warnings = tuple(one if one in ours else redactor.redact(one) for one in ended.warnings)
    return msgspec.structs.replace(ended, error=failure, incomplete_reason=reason, warnings=warnings)


def failure_without_reply(
    name: str,
    error: OSError | aiohttp.ClientError,
    *,
    sent: bool,
    connect_timeout_s: float,
    first_byte_timeout_s: float,
) -> FailedAttempt:
    """Say what it means that the upstream called `name` sent no reply. `sent`: it may have the whole request."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            message = f"No connection to the upstream {name!r} within {connect_timeout_s:g} s."
            return FailedAttempt(
                Problem("upstream_unreachable", message), transient=True, elsewhere=True, unhealthy=True
            )
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            cause = connection_failure(error)
            problem = Problem("upstream_unreachable", f"The upstream {name!r} cannot be trusted: {cause.what}.")
            return FailedAttempt(problem, elsewhere=True, unhealthy=True, cause=str(cause))
        case aiohttp.ClientConnectorError():
            cause = connection_failure(error)
            problem = Problem("upstream_unreachable", f"The upstream {name!r} cannot be reached: {cause.what}.")
            return FailedAttempt(problem, transient=True, elsewhere=True, unhealthy=True, cause=str(cause))
        case TimeoutError():
            message = f"The upstream {name!r} did not answer within {first_byte_timeout_s:g} s."
            return FailedAttempt(Problem("upstream_timeout", message), unhealthy=True)
        case aiohttp.ClientConnectionError() | OSError():
            message = f"The upstream {name!r} closed the connection before it answered."
            problem = Problem("upstream_unreachable", message, repeat="paid" if sent else "free")
            return FailedAttempt(problem, transient=not sent, elsewhere=not sent, unhealthy=True)
        case _:
            message = f"What the upstream {name!r} answered is not valid HTTP."
            return FailedAttempt(Problem("upstream_protocol_error", message), unhealthy=True)


def read_request_id(headers: Mapping[str, str], redactor: KeyRedactor) -> str:
    """Return the provider's own id of a request, or "" if it has none that is safe to log."""
    given = headers.get("x-request-id") or headers.get("request-id") or ""
    return given if _REQUEST_ID.fullmatch(given) and redactor.redact(given) == given else ""


def _own_key_refused(name: str) -> Problem:
    return Problem("upstream_unauthorized", f"The upstream {name!r} does not accept the gateway's key.")


def _quote(message: str) -> str:
    text = " ".join(message.split())
    if not text:
        return "."
    return f": {text}" if len(text) <= _MAX_MESSAGE_CHARS else f": {text[:_MAX_MESSAGE_CHARS]}…"
