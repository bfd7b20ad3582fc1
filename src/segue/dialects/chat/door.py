"""The door of Chat Completions: what a gateway needs to serve clients of this API.

Requests are read in `door_request`. A reply is written in `door_reply`, or in `passed_reply` if its provider speaks
this API too. Not here: its routes (`gateway.api`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from segue.dialects.chat.door_reply import ChatReplyWriter
from segue.dialects.chat.door_request import ChatRequest, read_chat_request
from segue.dialects.chat.passed_reply import PassedReplyWriter
from segue.dialects.doors import DoorRequest, DoorWriter, Speaks
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits


class ChatDoor:
    """Chat Completions as clients speak it."""

    name: Literal["chat"] = "chat"

    def passed_headers(self, headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:  # noqa: ARG002 - the contract of doors
        """Return no header lines: this API says everything in the body."""
        return ()

    def read(self, body: bytes, *, speaks: Speaks, limits: RequestLimits) -> ChatRequest | Problem:
        """Read the body of a request."""
        return read_chat_request(body, speaks, limits)

    def writer(self, asked: DoorRequest, response_id: ResponseId, created_at: int) -> DoorWriter:
        """Make the writer of one reply."""
        assert isinstance(asked, ChatRequest), "read() made it"
        if asked.create.native is None:
            return ChatReplyWriter(asked, response_id, created_at)
        return PassedReplyWriter(asked, response_id, created_at)
