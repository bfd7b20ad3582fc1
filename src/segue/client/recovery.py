"""The recovery decision: what a client does when a turn meets a fault, as a table of rules.

The theory: a create may be delivered once. After that it may be delivered again only if its first delivery provably ran
nothing, or if the server promises that a second one runs nothing new. The first is so for a create that never left, and
for a refusal that says so. The second is so for a server that keeps idempotency keys, as long as it is the same life of
that server (its epoch: keys are in its memory) and it still holds the key. In all other cases the client looks (resume,
retrieve) or says honestly that it does not know. Not here: what carries a decision out (`turn_machine`), and how a
fault is noticed (`transports`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec

from segue.client.settings import HistoryMode, TransportKind, TransportMode
from segue.http.error_replies import UNREPEATABLE, UNREPEATABLE_STATUS, UNREPEATABLE_STATUS_OF_RESPONSES
from segue.http.websocket import says_no_websocket
from segue.protocol.continuation_errors import CONNECTION_ENDED, PARENT_LOST, says_parent_is_lost

FaultKind = Literal[
    "connect_failed",  # no connection came about: name, route, TLS, time
    "upgrade_refused",  # the server answered the WebSocket upgrade with a status other than 101
    "connection_gone",  # the connection that the request was meant for is not there any more; nothing was sent
    "connection_lost",  # the connection broke
    "timeout",  # nothing came for too long
    "refused",  # an error before the first event of the response: its status, or its error event
    "failed",  # an error event after the response had started
    "stream_ended",  # the stream ended in order, but without a terminal event
    "unreadable",  # what came is no event of this API: a web page, broken JSON, too much
]

#: How far the turn was when the fault came. It never goes back while the turn's outcome is open.
Progress = Literal[
    "not_sent",  # the create was certainly never delivered
    "sent",  # perhaps delivered; no event came
    "started",  # `response.created` came, so the id is known
    "output",  # output came
]

Delivered = Literal["no", "maybe"]
BodyKind = Literal["json", "html", "other", "none"]


class TurnFault(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, as a transport saw it.

    `status`, `code`, `param`, `message` and `retry_after_s` are the server's own. `silent_s` says how long before the
    fault a lost connection last showed life. `delivered` is "no" only if the server cannot have got the request.
    """

    kind: FaultKind
    transport: TransportKind
    delivered: Delivered = "maybe"
    status: int | None = None
    code: str | None = None
    param: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    body_kind: BodyKind = "none"
    close_code: int | None = None
    silent_s: float | None = None


#: Whether the server is the one that took the create: `unknown` until it has been asked.
ServerLife = Literal["unknown", "same", "other"]


class RecoveryState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a turn beside its fault.

    `repeated`: the create was sent again while its first delivery was unanswered, and the fault answers the repeat.
    `by_id`: it names a previous response. `replayed`: the whole history was sent in this turn already. `keyed`: it
    carries an idempotency key that the server still holds, if it is the `same` server. `resumable`: the server lets its
    stream be resumed. `retrievable`: it is stored and its id is known. `own_field`: it carries a field that the client
    added by itself. `attempts` counts this fault and those before it since the last event.
    """

    progress: Progress
    mode: TransportMode = "auto"
    history: HistoryMode = "auto"
    server: ServerLife = "unknown"
    repeated: bool = False
    by_id: bool = False
    replayed: bool = False
    keyed: bool = False
    resumable: bool = False
    retrievable: bool = False
    own_field: bool = False
    attempts: int = 1
    most_attempts: int = 8
    websocket_failures: int = 0
    remaining_s: float = float("inf")
    fraction: float = 1.0


Action = Literal[
    "send",  # send the create, planned anew: nothing of it ran
    "replay",  # send the create with the whole history in place of an id
    "leave_out",  # send the create without the field that the client added by itself
    "use_http",  # use HTTP from now on, and go on as if the fault had come there
    "ask",  # connect again and ask the server whether it is the one that took the create; then decide again
    "repeat",  # send the same create with the same key
    "resume",  # ask for the events after the last one
    "retrieve",  # ask for the stored response
    "give_up",
]

#: The actions that deliver a create.
DELIVERING: frozenset[Action] = frozenset({"send", "replay", "leave_out", "repeat"})

Wait = Literal["none", "backoff", "told"]
ErrorKind = Literal["connection_failed", "create_refused", "continuation_lost", "response_failed", "outcome_unknown"]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, after how long a wait, and why; `error` says how to give up.

    `for_network`: the server was not heard, so that a change of the network is a reason to end the wait.
    """

    action: Action
    why: str
    wait_s: float = 0.0
    for_network: bool = False
    error: ErrorKind | None = None


#: How often in a row WebSocket connections may break without a finished turn before HTTP is used.
MOST_WEBSOCKET_FAILURES = 3

#: The upper bound of the first wait; it doubles with each attempt, up to `LONGEST_WAIT_S`.
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0
#: A server that asks for a longer wait is not waited for: the caller decides.
LONGEST_TOLD_WAIT_S = 300.0

_DOUBLINGS = 10  # more would exceed the longest wait anyway

#: The status that an error event without one stands for, by its code; only such as prove that nothing ran.
_STATUS_OF_CODE: Mapping[str, int] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "invalid_value": 400,
        "invalid_type": 400,
        "invalid_json": 400,
        "invalid_prompt": 400,
        "missing_required_parameter": 400,
        "unsupported_parameter": 400,
        "context_length_exceeded": 400,
        "authentication_error": 401,
        "invalid_api_key": 401,
        "permission_error": 403,
        "not_found_error": 404,
        "model_not_found": 404,
        "rate_limit_error": 429,
        "rate_limit_exceeded": 429,
        "insufficient_quota": 429,
    }
)
#: The code of an error event that ends a turn whose server nobody hears any more.
_UNKNOWN_OUTCOME = "segue_outcome_unknown"
#: What a gateway tells with a status of 5xx or 429 as long as nothing can have run, and else with that of a refusal.
_CODES_OF_FAILURES = frozenset(
    {
        *("server_error", "store_error", "upstream_error", "upstream_unreachable", "vector_store_timeout"),
        *("server_overloaded", "rate_limit_exceeded"),
    }
)
_NEVER_WAIT = frozenset({"insufficient_quota"})
_OWN_FIELD_WORDS = ("include", "encrypted_content", "encrypted content")
_TOO_MANY, _UNAVAILABLE, _REQUEST_TIMEOUT = 429, 503, 408
#: The server or a network in between does not do this at all (RFC 9110, 15.6.2 and 15.6.6; RFC 6585, 6).
_NOT_DONE_HERE = frozenset({501, 505, 511})
_REDIRECTS, _CLIENT_ERRORS, _SERVER_ERRORS = range(300, 400), range(400, 500), range(500, 600)


def backoff_s(attempts: int, fraction: float) -> float:
    """Return the wait before the next attempt: exponential, with full jitter, so that clients do not come together."""
    return fraction * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(max(attempts - 1, 0), _DOUBLINGS))


def is_websocket_failure(fault: TurnFault) -> bool:
    """Return whether a fault counts against WebSockets: connections that break, and upgrades that fail for now.

    A server that cannot be reached at all says nothing about them.
    """
    if fault.transport != "websocket":
        return False
    if fault.kind == "upgrade_refused":
        return (fault.status or 0) in _SERVER_ERRORS and not _is_without_websocket(fault)
    return fault.kind in {"connection_lost", "timeout", "stream_ended", "unreadable"}


def is_passing(fault: TurnFault) -> bool:
    """Return whether a refusal is for now only: the server asked to wait, or the connection has reached a limit."""
    return _is_told_to_wait(fault) or fault.code in CONNECTION_ENDED


# --- conditions ------------------------------------------------------------------------------------------------------


def _is_without_websocket(fault: TurnFault) -> bool:
    page = fault.body_kind == "html"
    return fault.kind == "upgrade_refused" and says_no_websocket(fault.status or 0, page=page)


def _is_parent_lost(fault: TurnFault, state: RecoveryState) -> bool:
    return state.by_id and says_parent_is_lost(fault.code, fault.param, fault.status)


def _is_own_field(fault: TurnFault, state: RecoveryState) -> bool:
    if not state.own_field or fault.status not in _CLIENT_ERRORS:
        return False
    words = f"{fault.param or ''} {fault.message or ''}".lower()
    return any(word in words for word in _OWN_FIELD_WORDS)


def _is_told_to_wait(fault: TurnFault) -> bool:
    if fault.code in _NEVER_WAIT or (fault.retry_after_s or 0.0) > LONGEST_TOLD_WAIT_S:
        return False
    return fault.status == _TOO_MANY or (fault.status == _UNAVAILABLE and fault.retry_after_s is not None)


def _may_have_run(fault: TurnFault) -> bool:
    """Tell whether who answers says that it may have run, by its code: the status may be that of a refusal."""
    if fault.code in UNREPEATABLE or fault.status == UNREPEATABLE_STATUS:
        return True
    return fault.status == UNREPEATABLE_STATUS_OF_RESPONSES and fault.code in _CODES_OF_FAILURES


def _has_run_nothing(fault: TurnFault) -> bool:
    if _may_have_run(fault):
        return False
    known = fault.code in PARENT_LOST | CONNECTION_ENDED
    waits = fault.status == _UNAVAILABLE and fault.retry_after_s is not None
    elsewhere = fault.status in _REDIRECTS or fault.status in _NOT_DONE_HERE  # a redirect is never followed
    return known or waits or elsewhere or (fault.status in _CLIENT_ERRORS and fault.status != _REQUEST_TIMEOUT)


class Condition(NamedTuple):
    """One condition of a rule, in words and as a test."""

    words: str
    holds: Callable[[TurnFault, RecoveryState], bool]


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        "no_websocket": Condition(
            "the answer to the upgrade is 404, 405, 426, 501, a success, a redirect or a web page",
            lambda fault, _: _is_without_websocket(fault),
        ),
        "unreliable": Condition(
            f"{MOST_WEBSOCKET_FAILURES} WebSocket connections in a row broke without a finished turn",
            lambda fault, state: fault.transport == "websocket" and state.websocket_failures >= MOST_WEBSOCKET_FAILURES,
        ),
        "may_use_http": Condition(
            "`transport` is `auto`", lambda fault, state: fault.transport == "websocket" and state.mode == "auto"
        ),
        "attempts_left": Condition("attempts are left", lambda _, state: state.attempts < state.most_attempts),
        "first": Condition("it answers the only delivery", lambda _, state: not state.repeated),
        "repeat": Condition("it answers a repeat", lambda _, state: state.repeated),
        "parent_lost": Condition("the server does not know the previous response", _is_parent_lost),
        "may_replay": Condition(
            "`history` is not `id`, and the history was not sent yet",
            lambda _, state: state.history != "id" and not state.replayed,
        ),
        "only_ids": Condition("`history` is `id`", lambda _, state: state.history == "id"),
        "connection_ended": Condition(
            "the connection has reached a limit of its server", lambda fault, _: fault.code in CONNECTION_ENDED
        ),
        "own_field": Condition("it names a field that the client added by itself", _is_own_field),
        "told_to_wait": Condition(
            "its status is 429, or 503 with `Retry-After`", lambda fault, _: _is_told_to_wait(fault)
        ),
        "may_have_run": Condition(
            "a sidecar or gateway says that it may have run", lambda fault, _: _may_have_run(fault)
        ),
        "nothing_ran": Condition("its status says that nothing ran", lambda fault, _: _has_run_nothing(fault)),
        "resumable": Condition("the server lets the stream be resumed", lambda _, state: state.resumable),
        "keyed": Condition("the server holds the key of the create", lambda _, state: state.keyed),
        "recoverable": Condition(
            "the stream can be resumed, or the server holds the key",
            lambda _, state: state.keyed or (state.resumable and state.progress in _STARTED),
        ),
        "retrievable": Condition("the response is stored and its id known", lambda _, state: state.retrievable),
        "not_asked": Condition("the server has not been asked yet", lambda _, state: state.server == "unknown"),
        "same_server": Condition("it is the same life of the server", lambda _, state: state.server == "same"),
    }
)


# --- rules -----------------------------------------------------------------------------------------------------------


class RecoveryRule(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: if the progress and the fault are among these and all conditions hold, this is done."""

    progress: frozenset[Progress]
    faults: frozenset[FaultKind]
    when: tuple[str, ...] = ()
    action: Action
    why: str
    wait: Wait = "none"
    error: ErrorKind | None = None


_ANY: frozenset[Progress] = frozenset({"not_sent", "sent", "started", "output"})
_UNSENT: frozenset[Progress] = frozenset({"not_sent"})
_DELIVERED: frozenset[Progress] = frozenset({"sent", "started", "output"})
_STARTED: frozenset[Progress] = frozenset({"started", "output"})

_UPGRADE: frozenset[FaultKind] = frozenset({"upgrade_refused"})
_GONE: frozenset[FaultKind] = frozenset({"connection_gone"})
_REFUSED: frozenset[FaultKind] = frozenset({"refused"})
_FAILED: frozenset[FaultKind] = frozenset({"failed"})
#: The server gave no answer to the create, or none that can be read.
UNANSWERED: frozenset[FaultKind] = frozenset(
    {
        "connect_failed",
        "upgrade_refused",
        "connection_gone",
        "connection_lost",
        "timeout",
        "stream_ended",
        "unreadable",
    }
)


#: The network may be what is wrong.
_UNHEARD: frozenset[FaultKind] = frozenset({"connect_failed", "connection_lost", "timeout"})


def _rule(
    progress: frozenset[Progress],
    faults: frozenset[FaultKind],
    when: str,
    action: Action,
    *,
    why: str,
    wait: Wait = "none",
    error: ErrorKind | None = None,
) -> RecoveryRule:
    conditions = tuple(when.split())
    return RecoveryRule(
        progress=progress, faults=faults, when=conditions, action=action, why=why, wait=wait, error=error
    )


#: The first rule that fits decides. `docs/reference/client-recovery.md` shows this table.
RULES: tuple[RecoveryRule, ...] = (
    # --- nothing was delivered: it is safe to send ---
    _rule(_UNSENT, _UPGRADE, "no_websocket may_use_http", "use_http", why="The server has no WebSocket."),
    _rule(_UNSENT, _UPGRADE, "no_websocket", "give_up", error="create_refused", why="WebSocket was asked for."),
    _rule(_UNSENT, _UPGRADE, "told_to_wait attempts_left", "send", wait="told", why="The server said when to come."),
    _rule(_UNSENT, _UPGRADE, "nothing_ran", "give_up", error="create_refused", why="Coming again changes nothing."),
    _rule(_UNSENT, UNANSWERED, "unreliable may_use_http", "use_http", why="WebSockets do not last on this way."),
    _rule(_UNSENT, _GONE, "attempts_left", "send", why="Another connection takes it."),
    _rule(_UNSENT, UNANSWERED, "attempts_left", "send", wait="backoff", why="Nothing was sent."),
    _rule(_UNSENT, UNANSWERED, "", "give_up", error="connection_failed", why="No attempt is left."),
    # --- who answers does not know whether the server has it ---
    _rule(_ANY, _REFUSED, "may_have_run", "give_up", error="outcome_unknown",
        why="A second run could be paid for twice.",
    ),
    # --- the server refused the create before it began ---
    _rule(_ANY, _REFUSED, "first parent_lost may_replay", "replay", why="Nothing ran, and the client has the history."),
    _rule(_ANY, _REFUSED, "first parent_lost only_ids", "give_up", error="continuation_lost", why="You forbade it."),
    _rule(
        _ANY, _REFUSED, "first connection_ended attempts_left", "send", wait="backoff", why="A new connection takes it."
    ),
    _rule(_ANY, _REFUSED, "first own_field", "leave_out", why="Nothing ran, and you did not ask for the field."),
    _rule(_ANY, _REFUSED, "first told_to_wait attempts_left", "send", wait="told", why="The server said when to come."),
    _rule(_ANY, _REFUSED, "first nothing_ran", "give_up", error="create_refused", why="It would be refused again."),
    _rule(
        _DELIVERED, _REFUSED, "repeat parent_lost may_replay keyed same_server", "replay",
        why="The server does not know the key, so nothing ran; the same key guards the replay.",
    ),
    _rule(_DELIVERED, _REFUSED, "repeat connection_ended recoverable attempts_left", "ask", wait="backoff",
        why="A new connection takes the repeat.",
    ),
    _rule(_DELIVERED, _REFUSED, "repeat told_to_wait recoverable attempts_left", "ask", wait="told",
        why="The server said when to come.",
    ),
    _rule(_ANY, _REFUSED, "", "give_up", error="outcome_unknown", why="The server may have run it before it failed."),
    # --- the turn ran and failed ---
    _rule(_ANY, _FAILED, "", "give_up", error="response_failed", why="A second run would be paid for again."),
    # --- delivered, and no answer ---
    _rule(_DELIVERED, _UPGRADE, "no_websocket may_use_http recoverable", "use_http",
        why="The server has no WebSocket any more.",
    ),
    _rule(_DELIVERED, UNANSWERED, "unreliable may_use_http recoverable", "use_http",
        why="WebSockets do not last on this way.",
    ),
    _rule(_STARTED, UNANSWERED, "resumable not_asked attempts_left", "ask", wait="backoff",
        why="Only the same life of the server has the events.",
    ),
    _rule(_STARTED, UNANSWERED, "resumable same_server attempts_left", "resume", why="The server has the events."),
    _rule(_DELIVERED, UNANSWERED, "keyed not_asked attempts_left", "ask", wait="backoff",
        why="Only the same life of the server knows the key.",
    ),
    _rule(_DELIVERED, UNANSWERED, "keyed same_server attempts_left", "repeat", why="The key makes the repeat safe."),
    _rule(_STARTED, UNANSWERED, "retrievable attempts_left", "retrieve", wait="backoff",
        why="To look costs nothing.",
    ),
    _rule(_DELIVERED, UNANSWERED, "", "give_up", error="outcome_unknown", why="A second run could be paid for twice."),
)  # fmt: skip


def decide(fault: TurnFault, state: RecoveryState) -> Decision:
    """Return what to do about a fault: what the first rule that fits says, if there is time for its wait."""
    fault = _as_met(fault)
    rule = next(rule for rule in RULES if _fits(rule, fault, state))
    wait_s = _wait_s(rule.wait, fault, state)
    if rule.action != "give_up" and wait_s >= state.remaining_s:
        return _out_of_time(fault, state)
    for_network = rule.wait == "backoff" and fault.kind in _UNHEARD
    return Decision(action=rule.action, why=rule.why, wait_s=wait_s, for_network=for_network, error=rule.error)


def _as_met(fault: TurnFault) -> TurnFault:
    """Return a fault as what it stands for.

    An error event may leave its status out, or be about the connection and not about the response.
    """
    if fault.kind == "refused" and fault.status is None:
        return msgspec.structs.replace(fault, status=_STATUS_OF_CODE.get(fault.code or ""))
    if fault.kind == "failed" and fault.code in CONNECTION_ENDED:
        return msgspec.structs.replace(fault, kind="connection_lost")
    if fault.kind == "failed" and fault.code == _UNKNOWN_OUTCOME:
        return msgspec.structs.replace(fault, kind="refused")
    return fault


def _fits(rule: RecoveryRule, fault: TurnFault, state: RecoveryState) -> bool:
    if state.progress not in rule.progress or fault.kind not in rule.faults:
        return False
    return all(CONDITIONS[name].holds(fault, state) for name in rule.when)


def _wait_s(wait: Wait, fault: TurnFault, state: RecoveryState) -> float:
    if wait == "none":
        return 0.0
    backoff = backoff_s(state.attempts, state.fraction)
    return max(fault.retry_after_s or 0.0, backoff) if wait == "told" else backoff


def _out_of_time(fault: TurnFault, state: RecoveryState) -> Decision:
    error: ErrorKind = "outcome_unknown"
    if state.progress == "not_sent":
        error = "connection_failed"
    elif fault.kind == "refused" and not state.repeated and _has_run_nothing(fault):
        error = "create_refused"
    return Decision(action="give_up", why="The turn has no time left.", error=error)
