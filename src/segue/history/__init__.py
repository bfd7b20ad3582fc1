"""Histories, pure: append-only chains of turns that share their prefixes, and the cache that keeps recent ones.

What is here: `Turn` and `History` (chains), `Record` (the durable form of a response), `Cache` (what is held in memory
and what is dropped first). What is not: the disk (stores) and the clock.
"""
