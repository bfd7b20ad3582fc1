"""Histories, pure: append-only chains of turns that share their prefixes, and the cache that keeps recent ones.

What is here: `Turn` and `History` (chains), `Record` (the durable form of a response), `TurnCache` (which turns stay in
memory, and which are evicted first). What is not: the disk (stores) and the clock.
"""
