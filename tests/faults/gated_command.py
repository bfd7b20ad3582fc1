"""`python -m tests.faults.gated_command serve …`: the segue command, but its model says half of each answer and waits.

It goes on when a line comes on standard input, and then answers everything in full. For tests that need a turn to run
while something else happens to the process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from unittest.mock import patch

from segue.cli.main import main
from segue.config import Config
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.responses import usage
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream

HALF, REST = "the first half", " and the second"


class GatedUpstream(ScriptedUpstream):
    """A model that waits in the middle of its answers; the second half has as many tokens as are allowed."""

    async def start(self) -> None:
        """Begin to listen for the line."""
        self._gate = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin, self._on_line)

    def _on_line(self) -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin)
        self._gate.set()

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Say one half, wait, say the other."""
        rest = REST * (request.settings.max_output_tokens or 1)
        writer = OutputWriter(request.response_id)
        logging.getLogger(__name__).info("action=begin")
        yield writer.text(HALF)
        await self._gate.wait()
        yield [*writer.text(rest), *writer.end_item(), Ended("completed", usage(1, 2))]


def build_router(config: Config) -> Router:
    """Stand in for the gateway's own wiring."""
    del config
    return Router([ModelRule(GatedUpstream(), ("gated",)), ModelRule(ScriptedUpstream(), ("scripted",))])


if __name__ == "__main__":
    with patch("segue.gateway.app.build_router", build_router):
        main()
