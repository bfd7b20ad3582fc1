"""The local model: llama.cpp in this process, answering from a GGUF file.

    upstream = LocalUpstream(ModelFile(find_model()))
    await upstream.start()

`why_unavailable` tells beforehand if this can work here. Importing this package does not import llama.cpp. One thread
runs many turns at once (`engine`, `worker`), and the prefix cache keeps the tokens and the KV cache of each
conversation, so a continuation prefills only what is new. The same request computes the same tokens; with
`batch_invariant`, its answer is the same to the last bit, unless it asks for random sampling.

Modules import each other in one direction: `upstream`, `engine`, `worker`, `sequence_pool`, then `job`, `model` and
`scheduler`, then `output`, then `prompt`, `kv` and `grammar`. Not here: which models the gateway offers.
"""

from __future__ import annotations

from segue.engine.counters import EngineCounters
from segue.engine.model import ModelFile, Unavailable
from segue.engine.model_files import KNOWN_MODELS, MODEL_NAME, KnownModel, find_model, why_no_engine, why_unavailable
from segue.engine.upstream import LocalUpstream

__all__ = [
    "KNOWN_MODELS",
    "MODEL_NAME",
    "EngineCounters",
    "KnownModel",
    "LocalUpstream",
    "ModelFile",
    "Unavailable",
    "find_model",
    "why_no_engine",
    "why_unavailable",
]
