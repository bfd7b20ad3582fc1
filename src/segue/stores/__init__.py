"""Stores: where the records of store=true responses are kept, and the live state of turns that can be resumed.

Records have one asynchronous interface (`interface`) and two implementations (`memory`, `sqlite`). Every implementation
passes one conformance suite (`segue.testing.store_conformance`), also those of third parties. Live state is kept in
memory (`event_logs`, `idempotency_keys`). Not here: what a record means (`history.records`).
"""
