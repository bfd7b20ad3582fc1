"""The tables about sidecars: what they count, how failures on the way are told, and what `segue doctor` finds.

What is there comes from the code; what it means is said here, and a word too many or too few is a mistake. Not here:
the marks in the pages (`generate_docs`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from segue.http.error_replies import FAILURES, UNREPEATABLE_STATUS, UNREPEATABLE_STATUS_OF_RESPONSES, FailureCode
from segue.sidecar.diagnosis.link_faults import FAULTS
from segue.sidecar.stats import SidecarReport
from tools.markdown import table

_WHEN: Mapping[FailureCode, str] = {
    "invalid_request": "The request is not correct HTTP, or its body does not arrive as it was sent.",
    "forbidden_host": "The request names a host that is not served here.",
    "forbidden_origin": "The request comes from a web page of elsewhere.",
    "forbidden_peer": "The sidecar serves its own user only, and this is another, or cannot be known; or the request "
    "asks for the counters, and may come from another machine.",
    "request_head_too_large": "The head is too large.",
    "request_too_large": "The body is larger than `max_body_bytes`, here or at the gateway.",
    "request_timeout": "The request did not arrive in time.",
    "unsupported_transfer_encoding": "The body comes in another coding than `chunked`.",
    "unsupported_http_version": "The request is not HTTP/1.1 or HTTP/1.0.",
    "route_not_found": "No route of the gateway leads there.",
    "invalid_target": "The path is not passed on, for example because of a `..` in it.",
    "segue_invalid_key": "The gateway does not know the sidecar's key, which is not the agent's key for its provider.",
    "segue_gateway_refused": "The gateway does not want the tunnel or the request; the message says why.",
    "segue_gateway_unreachable": "No gateway can be reached, or something else answers; the message says what.",
    "segue_outcome_unknown": "The gateway that had the request is gone: it may have been forwarded.",
    "segue_overloaded": "Too many connections or requests at once, here or at the gateway.",
    "segue_internal_error": "The sidecar or the gateway failed; its log says why.",
    "upstream_unreachable": "The gateway cannot connect to the provider.",
    "rate_limit_exceeded": "The gateway's key, or its tenant, is over a limit of requests, uploads or turns at once.",
    "upstream_busy": "The gateway has too many connections to the provider already.",
    "upstream_timeout": "The provider did not answer in time.",
    "upstream_closed": "The provider closed the connection before it answered.",
    "upstream_truncated": "The provider's answer ended early.",
    "upstream_protocol_error": "The provider does not answer in correct HTTP.",
}

_COUNTED: Mapping[str, str] = {
    "exchanges": "requests and WebSockets so far",
    "active": "of them under way now",
    "attached": "answered by the reply to an earlier try, whose agent had hung up during an outage",
    "direct": "sent straight to the provider",
    "agent_bytes_in": "bytes that agents would have sent to the provider, of requests that were carried to a reply",
    "agent_bytes_out": "bytes that they would have got from it",
    "tunnel_bytes_up": "bytes sent to the gateway",
    "tunnel_bytes_down": "bytes that came from it",
    "base_hits": "bodies that were rebuilt from a base",
    "base_misses": "bodies that could not be, and were sent again without one",
    "without_base": "bodies sent without a base",
    "links": "connections to gateways so far",
    "resumes": "of them those on which everything went on where it was",
    "queued": "of those under way, how many have not wholly gone to a gateway yet",
    "parked": "replies that are kept for agents that hung up during an outage",
    "link": "`connecting`, `up`, `away` or `refused`",
    "gateway": "the gateway of the present or last connection",
    "reason": "why there is no link; empty while there is one",
    "rtt_s": "the least round-trip time lately; null before the first",
    "failed": "requests that failed, by the code of the error; `cut`: the reply ended early",
    "recent": "the latest exchanges: path, status, outcome, sizes, time and error; no content and no query",
}


_UNREPEATABLE = f"{UNREPEATABLE_STATUS}; {UNREPEATABLE_STATUS_OF_RESPONSES} in the Responses API"


def failures() -> str:
    """Write the table of failures: how each is told, and when."""
    assert set(_WHEN) == set(FAILURES), f"say in _WHEN when these are told: {set(_WHEN) ^ set(FAILURES)}"
    rows = [
        (
            f"`{code}`",
            str(told.status) if told.repeatable else _UNREPEATABLE,
            f"`{told.kind}`",
            _retry(told.retry_after_s),
            "" if told.repeatable else "`false`",
            _WHEN[code],
        )
        for code, told in FAILURES.items()
    ]
    return table(("code", "status", "type", "`Retry-After`", "`x-should-retry`", "when"), rows)


def counted() -> str:
    """Write the fields of the object that a sidecar counts in."""
    names = [field.encode_name for field in msgspec.structs.fields(SidecarReport)]
    assert set(_COUNTED) == set(names), f"say in _COUNTED what these are: {set(_COUNTED) ^ set(names)}"
    return table(("field", "what it counts"), [(f"`{name}`", _COUNTED[name]) for name in names])


def doctor_faults() -> str:
    """Write the table of what `segue doctor` finds on the way to a gateway."""
    shown = {"gateway": "GATEWAY", "hop": "HOST", "detail": "…"}
    rows = [(f"`{text.check}`", text.finding.format(**shown), text.cure.format(**shown)) for text in FAULTS.values()]
    return table(("check", "what it finds", "what to do"), rows)


def _retry(after_s: int | None) -> str:
    return "" if after_s is None else f"{after_s} s"
