"""The local model: llama.cpp in this process, answering from a GGUF file.

    upstream = LocalUpstream(ModelFile(find_model()))
    await upstream.start()

`why_unavailable` says beforehand whether this can work here. Importing this package imports no engine. Many turns run
at once in a thread of their own (`engine`, `worker`), and each conversation's tokens and KV cache are kept: continuing
reads only what is new. The same request gives the same answer, unless temperature or top_p ask for a random one.
"""

from __future__ import annotations

from segue.engine.model import MODEL_NAME, ModelFile, Unavailable, find_model, why_no_engine, why_unavailable
from segue.engine.upstream import LocalUpstream
from segue.engine.worker import Counts

__all__ = [
    "MODEL_NAME",
    "Counts",
    "LocalUpstream",
    "ModelFile",
    "Unavailable",
    "find_model",
    "why_no_engine",
    "why_unavailable",
]
