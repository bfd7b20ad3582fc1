"""Records in PostgreSQL, or in a database that speaks as it does, for any number of gateways.

`store` is the store; it is imported only when the configuration asks for it, since the extra `cluster` brings what it
needs. `postgres_url` parses its URL and needs nothing. Not here: what lives only while turns run.
"""
