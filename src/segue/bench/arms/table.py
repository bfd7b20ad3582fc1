"""The arms, as one table: how the bytes leave the agent's machine, and what the client library is told.

A new arm is one entry here, and a module for its path if that is new, too. Not here: measuring one (`measurement`), and
arms that are computed from what another has sent (`computed`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from segue.bench.arms.agent_paths import OpenAgentPath, cold_sidecar, over_http2, straight, warm_sidecar
from segue.bench.arms.tunnelled import COLD, WARM
from segue.bench.workloads.agent_tasks import AgentArm
from segue.client.settings import HistoryMode, TransportMode

#: The arm that all others are compared with, and that the computed ones are computed from: today's habit.
REPLAY = "http replay"
SOCKET_REPLAY = "websocket replay"
THREADS = "message threads"


#: The API that an arm speaks on the wire.
ArmApi = Literal["responses", "messages"]


class MeasuredArm(msgspec.Struct, frozen=True, kw_only=True):
    """One arm that is measured."""

    name: str
    meaning: str
    open_path: OpenAgentPath = straight
    api: ArmApi = "responses"
    transport: TransportMode = "http"
    store: bool = False
    history: HistoryMode = "replay"

    @property
    def on_disk(self) -> bool:
        """Whether what it stores is on a disk."""
        return self.store and self.api == "responses"

    @property
    def switches(self) -> AgentArm:
        """What the client library is told."""
        return AgentArm(self.name, self.transport, self.store, self.history)


ARMS: Mapping[str, MeasuredArm] = {
    arm.name: arm
    for arm in (
        MeasuredArm(name=REPLAY, meaning="every request has the whole conversation"),
        MeasuredArm(name="http id", meaning="stored, and continued by id over HTTP", store=True, history="id"),
        MeasuredArm(
            name=SOCKET_REPLAY, meaning="the whole conversation again, over one WebSocket", transport="websocket"
        ),
        MeasuredArm(
            name="websocket id, not stored",
            meaning="continued by id over one WebSocket, kept in memory",
            transport="websocket",
            history="id",
        ),
        MeasuredArm(
            name="websocket id, stored",
            meaning="continued by id over one WebSocket, and stored",
            transport="websocket",
            store=True,
            history="id",
        ),
        MeasuredArm(
            name="http/2 replay",
            meaning="every request has the whole conversation, over one HTTP/2 connection",
            open_path=over_http2,
        ),
        MeasuredArm(
            name=THREADS,
            meaning="continued over HTTP as a message thread of Anthropic's API, kept in memory",
            api="messages",
            store=True,  # to the client library, it can be continued over HTTP
            history="id",
        ),
        MeasuredArm(name=COLD, meaning="http replay through a sidecar that is new", open_path=cold_sidecar),
        MeasuredArm(name=WARM, meaning="the same, after an earlier task of the same agent", open_path=warm_sidecar),
    )
}
