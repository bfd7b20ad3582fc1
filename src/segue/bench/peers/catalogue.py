"""The peers: other servers that keep histories, and how each is started, by its own documentation. Pure data.

Texts have placeholders: `$port` and `$spare_port` are free ports, `$provider` is the URL of the scripted provider
without a path, and `$folder` is an empty folder that is thrown away. Every peer is started with its defaults, as far as
they let it listen on this machine alone and ask the scripted provider. Not here: finding and starting them
(`installed`, `running`).
"""

from __future__ import annotations

from string import Template
from typing import Literal

import msgspec

from segue.client.settings import TransportKind

#: Our own entries, which the others are compared with.
OURS, OURS_IN_MEMORY, OURS_OVER_CHAT = "segue", "segue, memory", "segue, Chat"
_MODEL = "bench-model"
#: What peers are given as a key, and what they are asked with. LiteLLM wants one, and none that is too simple.
KEY = "sk-segue-bench-8c1f0a5e72d94b36"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One server: what it is, how to get it, and how to start it."""

    name: str
    tested: str
    """The version that this entry was made for."""
    install: str
    needs: str = ""
    """What it needs beside that."""
    program: str
    """The program to look for; empty for ourselves."""
    distribution: str
    """The Python package that the program is from, which tells its version."""
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    """Files to write into the folder: name and text."""
    ready_path: str
    """Answers 200 when the server is ready."""
    model: str = _MODEL
    doors: tuple[TransportKind, ...]
    provider_api: Literal["responses", "chat"]
    keeps_in: str
    beside: str = ""
    """The entry of ours that does the same: the same API to the provider, the same kind of store."""

    @property
    def ours(self) -> bool:
        """Whether it is one of our own entries."""
        return not self.program


class PeerPlace(msgspec.Struct, frozen=True, kw_only=True):
    """What fills the placeholders."""

    port: int
    spare_port: int
    provider: str
    folder: str

    def fill(self, text: str) -> str:
        """Replace the placeholders of a text."""
        return Template(text).substitute({name: str(getattr(self, name)) for name in self.__struct_fields__})


def _segue(name: str, *, store: str, dialect: Literal["responses", "chat"], keeps_in: str) -> Peer:
    config = (
        f'[server]\nport = $port\nstore = "{store}"\n\n'
        f'[[upstream]]\nname = "provider"\ndialect = "{dialect}"\nbase_url = "$provider/v1"\nmodels = ["{_MODEL}"]\n'
    )
    return Peer(
        name=name,
        tested="this version",
        install="it is here",
        program="",
        distribution="segue",
        arguments=("-m", "segue", "serve", "--config", "segue.toml", "--log", "warning"),
        files=(("segue.toml", config),),
        ready_path="/healthz",
        doors=("http", "websocket"),
        provider_api=dialect,
        keeps_in=keeps_in,
    )


_LITELLM_CONFIG = f"""\
model_list:
  - model_name: {_MODEL}
    litellm_params:
      model: deepseek/{_MODEL}
      api_base: $provider/v1
      api_key: bench
general_settings:
  master_key: {KEY}
"""

_OGX_CONFIG = """\
version: 2
distro_name: bench
apis: [files, inference, responses, tool_runtime, vector_io]
providers:
  inference:
  - provider_id: openai
    provider_type: remote::openai
    config: {api_key: bench, base_url: $provider/v1}
  vector_io:
  - provider_id: faiss
    provider_type: inline::faiss
    config: {persistence: {namespace: "vector_io::faiss", backend: kv_default}}
  responses:
  - provider_id: builtin
    provider_type: inline::builtin
    config: {persistence: {responses: {table_name: responses, backend: sql_default}}}
  tool_runtime:
  - provider_id: file-search
    provider_type: inline::file-search
  files:
  - provider_id: builtin-files
    provider_type: inline::localfs
    config: {storage_dir: $folder/files, metadata_store: {table_name: files_metadata, backend: sql_default}}
storage:
  backends:
    kv_default: {type: kv_sqlite, db_path: $folder/kv.db}
    sql_default: {type: sql_sqlite, db_path: $folder/sql.db}
  stores:
    metadata: {namespace: registry, backend: kv_default}
    inference: {table_name: inference_store, backend: sql_default}
    conversations: {table_name: openai_conversations, backend: sql_default}
    prompts: {table_name: prompts, backend: sql_default}
    connectors: {table_name: connectors, backend: sql_default}
registered_resources: {models: [], vector_stores: []}
server: {host: 127.0.0.1, port: $port, insecure: true}
"""

PEERS: tuple[Peer, ...] = (
    _segue(OURS, store="sqlite:///segue.db", dialect="responses", keeps_in="SQLite"),
    _segue(OURS_IN_MEMORY, store="memory:", dialect="responses", keeps_in="memory"),
    _segue(OURS_OVER_CHAT, store="sqlite:///segue.db", dialect="chat", keeps_in="SQLite"),
    Peer(
        name="agentic-api",
        tested="0.9.0",
        install="pip install agentic-api==0.9.0",
        program="agentic-server",
        distribution="agentic-api",
        arguments=(
            *("--llm-api-base", "$provider", "--gateway-host", "127.0.0.1", "--gateway-port", "$port"),
            *("--db-url", "sqlite://$folder/agentic.db?mode=rwc"),
        ),
        environment=(("OPENAI_API_KEY", KEY),),
        ready_path="/health",
        doors=("http", "websocket"),
        provider_api="responses",
        keeps_in="SQLite",
        beside=OURS,
    ),
    Peer(
        name="SMG",
        tested="1.13.0",
        install="pip install smg==1.13.0",
        program="smg",
        distribution="smg",
        arguments=(
            *("launch", "--host", "127.0.0.1", "--port", "$port", "--backend", "openai"),
            *("--worker-urls", "$provider", "--history-backend", "memory"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", "$spare_port"),
        ),
        environment=(("OPENAI_API_KEY", KEY),),
        ready_path="/health",
        doors=("http",),
        provider_api="responses",
        keeps_in="memory",
        beside=OURS_IN_MEMORY,
    ),
    Peer(
        name="OGX",
        tested="1.5.0",
        install="pip install ogx==1.5.0 faiss-cpu chardet pypdf aiosqlite",
        needs="Python 3.12; offline, TIKTOKEN_CACHE_DIR with the encoding cl100k_base",
        program="ogx",
        distribution="ogx",
        arguments=("run", "--insecure", "ogx.yaml"),
        files=(("ogx.yaml", _OGX_CONFIG),),
        ready_path="/v1/health",
        model=f"openai/{_MODEL}",
        doors=("http", "websocket"),
        provider_api="chat",
        keeps_in="SQLite",
        beside=OURS_OVER_CHAT,
    ),
    Peer(
        name="LiteLLM",
        tested="1.108.7",
        install="pip install 'litellm[proxy]==1.108.7' httptools",
        program="litellm",
        distribution="litellm",
        arguments=("--config", "litellm.yaml", "--host", "127.0.0.1", "--port", "$port", "--num_workers", "1"),
        environment=(("LITELLM_LOCAL_MODEL_COST_MAP", "True"),),
        files=(("litellm.yaml", _LITELLM_CONFIG),),
        ready_path="/health/liveliness",
        doors=("http", "websocket"),
        provider_api="chat",
        keeps_in="memory",
        beside=OURS_OVER_CHAT,
    ),
)
