"""Upstreams: the model servers that a turn can run on, behind one interface, and the router that picks one by the
model's name.

`http` calls providers; `scripted` is a deterministic model for tests and benchmarks. Not here: what a turn means (the
gateway's executor), how a dialect is written (`dialects`), and the local model (`engine`).
"""
