"""What only lives while turns run: in the memory of one gateway, or in a Redis or Valkey that several share.

`interface` says what there is, `memory` and the `redis_…` modules are its two forms, `opening` picks one. Event logs
and idempotency keys have their own interfaces (`segue.stores`). Not here: records, which outlive everything.
"""
