"""The Responses wire protocol, pure: bytes, ids and `now` come in; values and effects come out.

What is here: ids, problems (refusals as values), items as bytes and as typed values, the request (`Create`), the events
that this product emits, the response object, the stream of one turn, and the state machine of one connection.
What is not: sockets, clocks, randomness, storage. The shells own those.
"""
