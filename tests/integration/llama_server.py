"""llama.cpp's own HTTP server, as a process: `python -m tests.integration.llama_server MODEL_FILE` prints `listening on
URL` once it answers, and ends with its standard input. With `--slots N`, that many conversations have room, and
`--host-mib N` of host memory are for others; with `--template FILE`, that is the chat template instead of the model's.
A process of its own, since its library is not the one that the gateway's local models use.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from pathlib import Path

READY = "listening on "


def main() -> None:
    import xllamacpp  # not there on every platform, and never in the process of the tests

    parser = ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--host-mib", type=int, default=0)
    parser.add_argument("--template", type=Path)
    asked = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = asked.model
    params.n_ctx = 4096
    params.n_parallel = 1
    if asked.template is not None:
        params.chat_template = asked.template.read_text("utf-8")
    if asked.slots is not None:
        params.n_parallel = asked.slots
        params.n_ctx = 4096 * params.n_parallel
        params.cache_ram_mib = asked.host_mib
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
