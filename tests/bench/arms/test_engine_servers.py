"""The two servers of a model file: the gateway's, and llama.cpp's own with the settings that it is given."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest

from segue.bench.arms import engine_servers
from segue.bench.arms.child import launched
from segue.bench.arms.engine_servers import (
    MODEL,
    EngineServerSpec,
    LlamaServerSpec,
    llama_cpp_builds,
    serve_llama,
    serve_model,
    why_no_llama_server,
)
from segue.bench.arms.server import Ready
from segue.bench.meters.chat_stream import ask
from segue.engine import ModelFile
from segue.testing.tiny_model import write_tiny_model
from segue.upstreams.scripted import MODEL as SCRIPTED
from segue.upstreams.scripted import ScriptedUpstream
from tests.bench.arms.processes import with_stdin

LLAMA = LlamaServerSpec(file="tiny.gguf", cells=1024, parallel=2, threads=1)


def tiny(folder: Path) -> str:
    write_tiny_model(folder / "tiny.gguf")
    return str(folder / "tiny.gguf")


@pytest.mark.local_engine
async def test_the_gateway_answers_with_the_local_model(tmp_path: Path) -> None:
    """And the scripted model beside it."""
    spec = EngineServerSpec(file=tiny(tmp_path), context=512, cells=700, parallel=2, threads=1)
    said = [{"role": "user", "content": "a"}]
    async with serve_model(spec) as (host, port), aiohttp.ClientSession() as session:
        answer = await ask(session, f"http://{host}:{port}", said, model=MODEL, tokens=4)
        scripted = await ask(session, f"http://{host}:{port}", said, model=SCRIPTED, tokens=4)
    assert answer.output_tokens <= 4
    assert scripted.text


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }}"])
async def test_both_servers_get_as_much_of_everything(
    template: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells, turns at once, threads, host memory, and the same chat template."""
    files: list[ModelFile] = []
    params: list[SimpleNamespace] = []

    def upstream(file: ModelFile) -> ScriptedUpstream:
        files.append(file)
        return ScriptedUpstream()

    written = None
    if template is not None:
        (tmp_path / "chat.jinja").write_text(template)
        written = str(tmp_path / "chat.jinja")
    monkeypatch.setattr(engine_servers, "LocalUpstream", upstream)
    monkeypatch.setattr(engine_servers, "import_module", lambda _: fake_library(params))
    ours = EngineServerSpec(file="m.gguf", context=512, cells=1024, parallel=2, threads=1, template=written)
    async with serve_model(ours), serve_model(msgspec.structs.replace(LLAMA, file="m.gguf", template=written)):
        pass
    (file,), (theirs,) = files, params
    assert (file.cells, file.parallel, file.threads) == (theirs.n_ctx, theirs.n_parallel, theirs.cpuparams.n_threads)
    assert file.host_bytes == theirs.cache_ram_mib * 2**20
    given = None if file.template is None else file.template.read_text()
    assert given == getattr(theirs, "chat_template", None) == template


@pytest.mark.deep
@pytest.mark.skipif(why_no_llama_server() is not None, reason="llama.cpp's own server is not installed")
async def test_llama_cpps_own_server_answers_the_same_way(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(LLAMA, file=tiny(tmp_path))
    async with launched(spec, "segue.bench.arms.engine_servers") as child, aiohttp.ClientSession() as session:
        url = f"http://{child.host}:{child.port}"
        answer = await ask(session, url, [{"role": "user", "content": "a"}], model=MODEL, tokens=4)
    assert answer.output_tokens <= 4


def fake_library(made: list[SimpleNamespace]) -> SimpleNamespace:
    params = SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

    def server(given: SimpleNamespace) -> SimpleNamespace:
        made.append(given)
        return SimpleNamespace(listening_address="http://127.0.0.1:4321")

    return SimpleNamespace(CommonParams=lambda: params, Server=server)


async def test_llama_cpps_own_server_gets_the_same_model_threads_and_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SimpleNamespace] = []
    monkeypatch.setattr(engine_servers, "import_module", lambda _: fake_library(made))
    async with serve_llama(LLAMA) as address:
        assert address == ("127.0.0.1", 4321)
    (params,) = made
    assert (params.model.path, params.n_ctx, params.n_parallel) == ("tiny.gguf", 1024, 2)
    assert params.cpuparams.n_threads == params.cpuparams_batch.n_threads == 1


def test_the_program_leaves_the_librarys_threads_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would not let the interpreter end."""
    monkeypatch.setattr(engine_servers, "import_module", lambda _: fake_library([]))
    monkeypatch.setattr(sys, "argv", ["engine_servers", msgspec.json.encode(LLAMA).decode()])
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    printed = with_stdin(monkeypatch, b"")
    engine_servers.main()
    assert msgspec.json.decode(printed.getvalue().splitlines()[0], type=Ready).port == 4321
    assert left == [0]


def test_where_the_package_is_missing_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_servers, "find_spec", lambda _: None)
    assert "xllamacpp" in (why_no_llama_server() or "")
    monkeypatch.setattr(engine_servers, "find_spec", lambda _: object())
    assert why_no_llama_server() is None


@pytest.mark.local_engine
def test_the_builds_of_llama_cpp_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_servers, "version", {"xllamacpp": "2026.5.9294"}.__getitem__)
    ours, theirs = llama_cpp_builds()
    assert ours[0] == "b"
    assert int(ours[1:]) > 9000
    assert theirs == "b9294"


def test_a_build_that_nothing_tells_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(engine_servers, "find_spec", lambda _: None)
    monkeypatch.setattr(engine_servers, "version", missing)
    assert llama_cpp_builds() == ("unknown", "unknown")
