"""Stores: where the records of store=true responses are kept.

One asynchronous interface (`interface`), several implementations (`memory`, `sqlite`), one conformance suite
(`conformance`) that every implementation passes, including those of third parties.
"""
