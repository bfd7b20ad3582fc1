"""What the columns of a row mean, in whatever database they are."""

from __future__ import annotations

from segue.protocol.ids import ResponseId
from segue.protocol.items import join
from segue.stores.turn_rows import link_of, record_of, stored_turn_of

IDENT, PARENT = ResponseId("resp_1"), ResponseId("resp_0")
GIVEN, OUTPUT = (b'{"a":1}', b'{"b":2}'), (b'{"c":3}',)


def test_a_record_has_what_its_columns_say() -> None:
    record = record_of("alice", IDENT, (PARENT, 1.0, 2.0, b"h", b"e", join(GIVEN), join(OUTPUT), b'["x"]', None))
    assert (record.tenant, record.id, record.parent_id) == ("alice", IDENT, PARENT)
    assert (record.created_at, record.expires_at, record.head, record.echo) == (1.0, 2.0, b"h", b"e")
    assert (record.input, record.output) == (GIVEN, OUTPUT)
    assert record.calls == {"x"}
    assert record.native is None


def test_a_link_of_a_chain_is_alive_whether_its_column_is_a_boolean_or_a_number() -> None:
    for alive in (True, 1, False, 0):
        link = link_of((7, IDENT, 2.0, alive, join(GIVEN), join(OUTPUT), b"[]", None))
        assert (link.id, link.expires_at, link.alive) == (IDENT, 2.0, alive in (True, 1))
        assert (link.input, link.output) == (GIVEN, OUTPUT)
        assert link.calls == set()


def test_a_turn_is_copied_as_it_is_with_its_items_in_order() -> None:
    row = ("alice", IDENT, None, 1.0, 2.0, None, None, b"[]", b"given", b"output", b"native")
    turn = stored_turn_of(row, iter(["b", "a"]))
    assert (turn.parent_id, turn.head, turn.echo) == (None, None, None)
    assert (turn.input, turn.output, turn.native, turn.items) == (b"given", b"output", b"native", ("a", "b"))
