"""llama.cpp's own HTTP server, as a process: `python -m tests.integration.llama_server MODEL_FILE [SLOTS MIB]`
prints `listening on URL` once it answers, and ends with its standard input. With SLOTS, that many conversations have
room, and MIB of host memory are for others. A process of its own, since its library is not the one that the gateway's
local models use.
"""

from __future__ import annotations

import os
import sys

READY = "listening on "


def main() -> None:
    import xllamacpp  # not there on every platform, and never in the process of the tests

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 4096
    params.n_parallel = 1
    if len(sys.argv) > 2:
        params.n_parallel = int(sys.argv[2])
        params.n_ctx = 4096 * params.n_parallel
        params.cache_ram_mib = int(sys.argv[3])
        params.endpoint_slots = True
    params.port = 0
    params.warmup = False
    params.verbosity = 0
    params.cpuparams.n_threads = 1  # more would spin for the cores that the gateway and its tests need
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{READY}{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # the library's threads would not let the interpreter end in peace


if __name__ == "__main__":
    main()
