"""`python -m tests.faults.isolation.watched_command LIMIT serve …`: the segue command with so many file descriptors.

On SIGUSR1 it says on stderr how many tasks its event loop has.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from unittest.mock import patch

from segue.cli.main import main
from segue.gateway.app import Gateway

_listen = Gateway.listen


async def _watched(gateway: Gateway, opened: Sequence[Sequence[socket.socket]] | None = None) -> str:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: sys.stderr.write(f"tasks={len(asyncio.all_tasks())}\n"))
    return await _listen(gateway, opened)


if __name__ == "__main__":
    limit = int(sys.argv.pop(1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with patch.object(Gateway, "listen", _watched):
        main()
