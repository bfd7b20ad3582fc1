"""One worker of `segue serve --workers N`: a gateway that listens on sockets which its supervisor has opened.

`python -m segue.cli.worker SPEC` runs it; SPEC is JSON. Its standard input is a pipe from the supervisor: the end of it
means that the worker is to accept nothing more, and to end when nothing runs any more. By another pipe the supervisor
learns that its event loop turns. Not here: the supervisor (`workers`), and what a gateway does until a signal
(`serve`).
"""

from __future__ import annotations

import socket
import sys

import msgspec

from segue.cli.serve import Inherited, run_gateway, set_up_log
from segue.cli.serve_options import WorkerSpec
from segue.config import ConfigError


def main(argument: str) -> int:
    """Run the worker to its end; returns the exit status."""
    spec = msgspec.json.decode(argument, type=WorkerSpec)
    set_up_log(spec.options.log, f"%(asctime)s %(levelname)s %(name)s worker={spec.number} %(message)s")
    sockets = [[socket.socket(fileno=number) for number in own] for own in spec.sockets]
    try:
        return run_gateway(spec.options, Inherited(sockets, sys.stdin.fileno(), spec.heartbeat, spec.options.slot or 0))
    except ConfigError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
