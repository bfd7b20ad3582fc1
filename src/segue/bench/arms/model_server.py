"""The server of the arms, in a process of its own: a gateway whose model plays a workload.

`python -m segue.bench.arms.model_server SPEC` serves what SPEC (JSON) describes. Its tunnel forwards the paths of
providers' APIs to the gateway's own, so that a sidecar leads to the same server as every other path. The process
answers and ends as that of `server` does. Not here: starting it (`child`) and what is read off it (`server_reading`).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from segue.bench.arms.ends import PATHS
from segue.bench.arms.server import address_of, run_process
from segue.bench.arms.workload_model import WorkloadModel
from segue.bench.workloads.workload import read_workload
from segue.config import Config, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL


class ModelServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which workload the model plays, how fast it writes (None: at once), and where stored responses are kept."""

    workload: str
    tokens_s: float | None = None
    store: str = "memory:"


@asynccontextmanager
async def serve_workload(spec: ModelServerSpec) -> AsyncIterator[tuple[str, int]]:
    """Serve around a block; yields where."""
    model = WorkloadModel(read_workload(spec.workload), spec.tokens_s)
    routes = [RouteConfig(path=path, target="self") for path in PATHS]
    config = Config(server=ServerConfig(port=0, store=spec.store), route=routes)
    async with serving(config, Router([ModelRule(model, (MODEL,))])) as (_, url):
        yield address_of(url)


def main() -> None:
    """Run what the command line specifies."""
    run_process(serve_workload(msgspec.json.decode(sys.argv[1], type=ModelServerSpec)))


if __name__ == "__main__":
    main()
