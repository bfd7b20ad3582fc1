"""Upstreams: the model servers a turn can run on, behind one interface, and the router that picks one by model name.

`scripted` is a deterministic model for tests and benchmarks, `local` runs llama.cpp in this process. Not here: what a
turn means (executor) and how a dialect is written (dialects).
"""
