"""Problems: why a request is refused or a turn fails, as values.

A problem says what is wrong in the wire's own words (`code`, `param`) and in a sentence that tells the client what
to do. It does not know HTTP statuses, event shapes or close codes: the gateway maps `code` to those in one table.
Every message a client can see is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

Code = Literal[
    "invalid_json",
    "invalid_type",
    "invalid_value",
    "missing_required_parameter",
    "unknown_event_type",
    "unsupported_parameter",
    "unsupported_content_encoding",
    "message_too_large",
    "previous_response_not_found",
    "tool_call_not_found",
    "store_mismatch",
    "thread_not_found",
    "thread_already_continued",
    "thread_continue_in_flight",
    "thread_fingerprint_mismatch",
    "thread_unsupported_request",
    "model_not_found",
    "response_not_found",
    "conversation_not_found",
    "conversation_locked",
    "item_not_found",
    "invalid_encrypted_content",
    "route_not_found",
    "method_not_allowed",
    "upgrade_required",
    "request_timeout",
    "request_head_too_large",
    "invalid_api_key",
    "forbidden_host",
    "forbidden_origin",
    "forbidden_peer",
    "websocket_connection_limit_reached",
    "websocket_stream_limit_reached",
    "invalid_stream_id",
    "response_events_gone",
    "response_not_cancellable",
    "response_cancelled",
    "idempotency_key_reused",
    "epoch_changed",
    "segue_outcome_unknown",
    "stale_upgrade",
    "context_length_exceeded",
    "server_overloaded",
    "rate_limit_exceeded",
    "insufficient_quota",
    "upstream_rejected",
    "upstream_unauthorized",
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_error",
    "upstream_protocol_error",
    "store_error",
    "server_error",
]


#: What it means to send a request again: the model has not run, so that it costs nothing; or nothing will have changed,
#: or it is not wanted; or the model may have run, so that it may be paid for twice.
Repeat = Literal["free", "futile", "paid"]


class Problem(msgspec.Struct, frozen=True):
    """Why a request is refused or a turn failed; `retry_after_s` says when it may be worth another try, if known.

    `repeat` says what it would mean to send the request again, if that is known better than by `code`.
    `documented_code` is the upstream's own code, if the Responses API has it: clients are told it in place of `code`.
    """

    code: Code
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    repeat: Repeat | None = None
    documented_code: str | None = None
    headers: Mapping[str, str] | None = None
    """Header lines that tell more, by names in lower case."""

    @property
    def told_code(self) -> str:
        """The code that a client is told."""
        return self.documented_code or self.code


class Refused(Exception):
    """Raised by the shells (never by this package) when a request ends in a problem instead of a stream."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def quoted(text: str, limit: int = 80) -> str:
    """Quote what a client sent for an error message, cut so that hostile input cannot make a large reply."""
    shown = text if len(text) <= limit else text[:limit] + "…"
    return f"'{shown.encode('utf-8', 'replace').decode()}'"  # a header may hold bytes that are no text


def invalid_json(detail: str) -> Problem:
    """The bytes are no JSON document, or not of the kind that belongs there."""
    return Problem("invalid_json", f"The request is not valid JSON: {detail}. Send one JSON object.")


def missing(param: str) -> Problem:
    """A field that the request cannot do without is not there."""
    return Problem("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def unreadable_answer() -> Problem:
    """A turn has completed, and an event of its answer is not what the upstream's API says."""
    return Problem("upstream_protocol_error", "The upstream's answer holds events that cannot be read.")


def foreign_part(param: str, given: str, wanted: str) -> Problem:
    """A part of a message is written as another API writes it."""
    message = f"Invalid value for '{param}': it must be '{wanted}'; '{given}' is what Chat Completions calls it."
    return Problem("invalid_value", message, param)


def unsupported(param: str, advice: str) -> Problem:
    """The request asks for something that ignoring would answer wrongly."""
    return Problem("unsupported_parameter", f"'{param}' is not supported here: {advice}", param)


def unknown_type(got: str) -> Problem:
    """A WebSocket message of a type that clients do not send."""
    message = f"Unknown message type {quoted(got)}. A client sends 'response.create' on this connection."
    return Problem("unknown_event_type", message, "type")


def previous_response_not_found(response_id: str) -> Problem:
    """The parent is unknown, expired, deleted, or somebody else's: all look the same."""
    # The sentence is the service's own; the code is what clients act on: they resend the full input.
    message = f"Previous response with id {quoted(response_id)} not found."
    return Problem("previous_response_not_found", message, "previous_response_id")


def thread_not_found(message_id: str) -> Problem:
    """The message that a thread is to go on from is unknown, expired, or somebody else's: all look the same."""
    message = (
        f"No message thread is held for the previous_message_id {quoted(message_id)}. "
        "Begin a new one ('create') with the whole conversation."
    )
    return Problem("thread_not_found", message, "thread.previous_message_id")


def thread_continued(message_id: str) -> Problem:
    """A message has a successor, and the tenant's threads may not fork."""
    message = (
        f"The thread of {quoted(message_id)} was already continued: each message can be continued once here. "
        "Begin a new thread ('create') with the whole conversation."
    )
    return Problem("thread_already_continued", message, "thread.previous_message_id")


def thread_in_flight(message_id: str) -> Problem:
    """Another request is continuing the same message."""
    message = (
        f"Another request continues {quoted(message_id)} at this moment. "
        "Wait for its reply, or begin a new thread ('create') with the whole conversation."
    )
    return Problem("thread_continue_in_flight", message, "thread.previous_message_id")


def thread_mismatch(fields: Sequence[str]) -> Problem:
    """What a thread keeps was sent again and is not the same; clients read the names out of the message."""
    message = (
        f"The request does not fit its thread: differing field(s): {', '.join(fields)}. "
        "Leave them out, or begin a new thread ('create')."
    )
    return Problem("thread_fingerprint_mismatch", message, "thread")


def thread_unsupported(reason: str) -> Problem:
    """A message thread is asked for where there is none: its client goes on without, and sends whole histories."""
    # https://platform.claude.com/docs/en/build-with-claude/message-threads; ignoring the field would lose the history.
    message = (
        f"This request cannot be part of a message thread: {reason}. Send the whole conversation without 'thread'."
    )
    return Problem("thread_unsupported_request", message, "thread")


def response_not_found(response_id: str) -> Problem:
    """There is no such stored response for this tenant."""
    return Problem("response_not_found", f"Response with id {quoted(response_id)} not found.", "response_id")


def conversation_not_found(conversation_id: str, param: str = "conversation_id") -> Problem:
    """There is no such conversation for this tenant: unknown, deleted, or somebody else's, all look the same."""
    return Problem("conversation_not_found", f"Conversation with id {quoted(conversation_id)} not found.", param)


def conversation_locked() -> Problem:
    """A turn runs on a conversation, or its items are being changed: one at a time."""
    # The service's own sentence, code and parameter; clients wait and try again.
    message = "Another process is currently operating on this conversation. Please retry in a few seconds."
    return Problem("conversation_locked", message, "conversation", retry_after_s=1.0)


def conversation_not_stored() -> Problem:
    """A turn of a conversation is to be kept nowhere, so the conversation would miss it."""
    message = (
        "A response with store=false cannot belong to a conversation, which is stored. "
        "Leave 'store' out, or send the full input without 'conversation'."
    )
    return Problem("store_mismatch", message, "store")


def conversation_excludes(other: str) -> Problem:
    """A request names its history twice."""
    message = f"'conversation' and '{other}' both say which history to continue. Send one of them."
    return Problem("invalid_value", message, "conversation")


def conversation_item_not_found(item_id: str, conversation_id: str) -> Problem:
    """A conversation has no item with this id."""
    message = f"Item with id {quoted(item_id)} not found in conversation {quoted(conversation_id)}."
    return Problem("item_not_found", message, "item_id")


def item_not_found(item_id: str, index: int) -> Problem:
    """A reference names an item that is unknown, expired, deleted, or somebody else's: all look the same."""
    # The service's own sentence, and what a client can do.
    message = (
        f"Item with id {quoted(item_id)} not found. Items can be referred to while the response that they belong to is "
        "stored (store: true). Send the item itself in place of the reference."
    )
    return Problem("item_not_found", message, f"input[{index}].id")


def unreadable_compaction() -> Problem:
    """A compaction item is of another tenant, of an unknown key or gateway, or was changed: all look the same."""
    message = (
        "A compaction item in the history cannot be read here: another gateway made it, or its key is gone, or it is "
        "not yours, or it was changed. Send the items that it stands for, or begin a new conversation."
    )
    return Problem("invalid_encrypted_content", message, "input")


def misplaced_trigger(index: int) -> Problem:
    """What asks for the compaction of all before it has something behind it."""
    field = f"input[{index}].type"
    message = (
        f"Invalid value for '{field}': a 'compaction_trigger' is the last item of 'input', and the only one of it."
    )
    return Problem("invalid_value", message, field)


def references_too_large(limit_bytes: int) -> Problem:
    """The items that a request refers to are more than a request may hold."""
    message = (
        f"The items that 'input' refers to have more than {limit_bytes:,} bytes. "
        "Continue their response with previous_response_id."
    )
    return Problem("invalid_value", message, "input")


def references_too_many(limit: int) -> Problem:
    """The items that a request refers to are spread over too many responses."""
    message = (
        f"The items that 'input' refers to belong to more than {limit} responses. "
        "Continue the latest of them with previous_response_id, or send the items themselves."
    )
    return Problem("invalid_value", message, "input")


def events_gone(response_id: str, held_at: str = "") -> Problem:
    """A stream cannot be resumed: its events are not kept, no longer, or not from there, or at another gateway."""
    if held_at:
        message = (
            f"The events of response {quoted(response_id)} are in the memory of another gateway. "
            f"Ask {held_at}; if several share that address, ask again until you meet it."
        )
        return Problem("response_events_gone", message, "starting_after")
    message = (
        f"The events of response {quoted(response_id)} after that number are not kept, or no longer. "
        "If the response was stored, retrieve it without stream; else send the turn again."
    )
    return Problem("response_events_gone", message, "starting_after")


def not_cancellable(response_id: str) -> Problem:
    """Only a background response can be cancelled by its id."""
    message = (
        f"Response {quoted(response_id)} is not a background response. Close its connection to cancel a turn that runs."
    )
    return Problem("response_not_cancellable", message, "response_id")


def key_reused() -> Problem:
    """The same key came with another request."""
    message = "This idempotency key was used with another request. Use a new key for each request."
    return Problem("idempotency_key_reused", message, "segue.idempotency_key")


def epoch_changed() -> Problem:
    """A request relies on what the gateway had in its memory before it was started anew."""
    message = (
        "The gateway was started anew since this epoch, so it cannot tell whether it has had this request before. "
        "Nothing was run. Look at GET /segue/capabilities for its epoch."
    )
    return Problem("epoch_changed", message, "segue.epoch")


def outcome_unknown() -> Problem:
    """The gateway that ran a turn is gone, and another one cannot tell what became of it."""
    message = (
        "The gateway that ran this turn is gone: the model may have run. Nothing is known of its answer, unless the "
        "response was stored before: retrieve it. Send the turn again with another idempotency key if it may run twice."
    )
    return Problem("segue_outcome_unknown", message)


def live_away() -> Problem:
    """What several gateways share cannot be reached, and without it the request would not be safe."""
    return Problem(
        "store_error", "What the gateways share is away at the moment. Nothing was run or changed. Try again."
    )


def tool_call_not_found(call_id: str, index: int) -> Problem:
    """A tool output answers a call that the history does not hold."""
    message = (
        f"No tool call found for the output with call_id {quoted(call_id)}. "
        "Continue the response that made the call, or send the call item before its output."
    )
    return Problem("tool_call_not_found", message, f"input[{index}].call_id")


def already_answered(call_id: str, index: int) -> Problem:
    """A tool call has an output, and another one comes."""
    message = (
        f"The tool call with call_id {quoted(call_id)} has another output in the history. A call has one output. "
        "Leave this one out, or say what is new in a message."
    )
    return Problem("invalid_value", message, f"input[{index}].output")


def store_mismatch(response_id: str) -> Problem:
    """A stored response cannot stand on a parent that is nowhere stored."""
    message = (
        f"Response {quoted(response_id)} was made with store=false, so a store=true response cannot continue it. "
        "Send the full input without previous_response_id, or set store to false."
    )
    return Problem("store_mismatch", message, "store")


def model_not_found(model: str) -> Problem:
    """No upstream runs this model."""
    message = f"The model {quoted(model)} does not exist here. GET /v1/models lists the models that do."
    return Problem("model_not_found", message, "model")


def not_counted(model: str) -> Problem:
    """The tokens of an input are asked for before a turn, and the model's upstream does not count them."""
    advice = (
        f"the upstream of {quoted(model)} does not count the tokens of an input before it is sent. "
        "'usage' of each response has their number"
    )
    return unsupported("model", advice)


def connection_limit(minutes: float) -> Problem:
    """The connection has reached its age limit."""
    message = (
        f"Responses websocket connection limit reached ({minutes:g} minutes). "
        "Create a new websocket connection to continue."
    )
    return Problem("websocket_connection_limit_reached", message)


def turn_stopped() -> Problem:
    """The client has stopped the turn before its response had begun."""
    return Problem("response_cancelled", "The request was cancelled before its response had begun.")


def invalid_stream_id() -> Problem:
    """A lane's name is not of the form that names have."""
    message = (
        "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain letters, "
        "numbers, underscores, hyphens, and periods."
    )
    return Problem("invalid_stream_id", message, "stream_id")


def stream_limit(names: int) -> Problem:
    """A connection has used as many lanes as it may in its life."""
    message = (
        f"This WebSocket connection has reached its maximum number of distinct stream IDs ({names}). "
        "Reuse an existing stream_id or open a new WebSocket connection."
    )
    return Problem("websocket_stream_limit_reached", message, "stream_id")


def shutting_down() -> Problem:
    """The gateway drains. Clients know this code: it means to connect again."""
    message = "The gateway is shutting down. Create a new websocket connection to continue."
    return Problem("websocket_connection_limit_reached", message)
