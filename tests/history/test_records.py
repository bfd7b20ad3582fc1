"""Records: a response kept as bytes comes back as the same bytes, and a chain as the same history."""

from __future__ import annotations

import hashlib
import json

import msgspec

from segue.history.chains import History, NativeTurn, Turn, path
from segue.history.records import ChainLink, Record, encode_head, flatten, restore
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.ids import ResponseId, item_id
from segue.protocol.requests import Settings
from segue.protocol.responses import ResponseObjectHead, encode_echo, usage
from segue.protocol.turns import Finished, TurnStream
from segue.testing.protocol_checker import check_response
from segue.testing.store_conformance import LATER, link_of, sample_id, sample_record

ECHO = encode_echo(Settings(model="m"), store=True)


def finished(ended: Ended) -> Finished:
    writer = OutputWriter(sample_id("turn"))
    stream = TurnStream(sample_id("turn"), sample_id("parent"), ECHO, 100)
    stream.feed([*writer.text("é"), *writer.call("c", "f", "{}")])
    return stream.close(ended, 101)


def record_of(turn: Finished) -> Record:
    return Record(
        tenant="alice",
        id=turn.head.id,
        parent_id=turn.head.previous_response_id,
        created_at=100.0,
        expires_at=LATER,
        head=encode_head(turn.head),
        echo=ECHO,
        input=(b'{ "role": "user" }',),
        output=turn.output,
        calls=frozenset({"c"}),
    )


def turn_of(record: Record, parent: Turn | None) -> Turn:
    return Turn(
        id=record.id,
        parent=parent,
        input=record.input,
        output=record.output,
        calls=record.calls,
        stored=True,
        expires_at=record.expires_at,
        native=record.native,
    )


def fields(turn: Turn) -> tuple[object, ...]:
    return (turn.id, turn.input, turn.output, turn.calls, turn.stored, turn.expires_at, turn.native)


# ------------------------------------------------------------------------------------------------------------ records


def test_a_record_is_found_by_the_ids_that_do_not_tell_its_own() -> None:
    """Of its output those that others made, of its input those that no gateway of this kind made; none too long."""
    own, other = item_id("msg", sample_id("turn"), 0), item_id("msg", sample_id("other"), 0)
    idents = [own, other, "msg_1", "x" * 256, "x" * 257]
    record = sample_record("turn", given=idents, made=idents)
    assert record.output_ids() == {other, "msg_1", "x" * 256}
    assert record.input_ids() == {"msg_1", "x" * 256}
    assert sample_record("turn").output_ids() == sample_record("turn").input_ids() == frozenset()


def test_a_response_is_read_back_byte_for_byte() -> None:
    """As the terminal event carried it."""
    ends = [
        Ended("completed", usage(9, 4, cached=8, reasoning=1)),
        Ended("incomplete", usage(9, 4), incomplete_reason="max_output_tokens"),
        Ended("failed"),
    ]
    for ended in ends:
        turn = finished(ended)
        assert record_of(turn).response() == turn.response
        check_response(json.loads(turn.response.whole()))


def test_encrypted_reasoning_is_in_a_response_only_if_it_was_asked_for() -> None:
    """The record keeps it for the turns that continue it."""
    reasoning = {"id": "rs_1", "type": "reasoning", "summary": []}
    sealed = {**reasoning, "encrypted_content": "sealed"}
    record = msgspec.structs.replace(record_of(finished(Ended("completed"))), output=(json.dumps(sealed).encode(),))
    assert json.loads(record.response(encrypted=True).whole())["output"] == [sealed]
    assert json.loads(record.response(encrypted=False).whole())["output"] == [reasoning]
    assert record.response() == record.response(encrypted=False)


def test_a_head_is_kept_as_it_is() -> None:
    """Nothing of it is lost."""
    head = finished(Ended("completed")).head
    assert msgspec.json.decode(encode_head(head), type=ResponseObjectHead) == head


def test_an_echo_is_told_from_others_by_its_digest() -> None:
    """Equal echoes are kept once, so equal bytes must have equal digests."""
    one, same, other = (sample_record("x", echo=echo) for echo in (b"{}", b"{}", b"{ }"))
    assert one.echo_digest == same.echo_digest == hashlib.sha256(b"{}").digest()
    assert one.echo_digest != other.echo_digest


def test_a_record_costs_about_what_it_holds() -> None:
    """Its items, its head and its echo; not its history."""
    record = sample_record("x", "parent")
    content = len(record.head) + len(record.echo) + sum(map(len, record.input + record.output))
    assert record.native is not None
    assert record.size_bytes == content + len(record.native.messages) + 256


# ------------------------------------------------------------------------------------------------- from and to chains


def test_a_flattened_record_stands_for_the_same_history_alone() -> None:
    """Its ancestors' items are its input, their calls can still be answered, and the rest of it stays."""
    root = turn_of(sample_record("root"), None)
    parent = turn_of(sample_record("parent", "root"), root)
    record = sample_record("turn", "parent")
    alone = flatten(record, parent)
    assert alone.native is None, "the root has no words of another API"
    history = tuple(History(parent, record.input).items())
    assert alone == msgspec.structs.replace(
        record, parent_id=None, input=history, calls=frozenset({"root", "parent", "turn"}), native=None
    )
    before, after = History(turn_of(record, parent), ()), History(turn_of(alone, None), ())
    assert list(after.items()) == list(before.items())


def test_a_flattened_record_has_the_words_of_all_its_turns() -> None:
    """If all of them came in one API."""
    parent = turn_of(sample_record("parent", "root"), None)
    record = sample_record("turn", "parent")
    parts = (parent.native, record.native)
    assert flatten(record, parent).native == NativeTurn("messages", b",".join(part.messages for part in parts if part))
    other = msgspec.structs.replace(record, native=NativeTurn("chat", b"{}"))
    assert flatten(other, parent).native is None


LINKS = [link_of(sample_record(name)) for name in ("root", "middle", "tip")]


def nobody(response_id: ResponseId) -> Turn | None:
    return None


def test_a_chain_is_restored_from_its_root() -> None:
    """Each turn with what its link says, on top of the one before it."""
    tip = restore(LINKS, nobody)
    assert [fields(turn) for turn in path(tip)] == [
        (link.id, link.input, link.output, link.calls, True, link.expires_at, link.native) for link in LINKS
    ]
    assert tip.depth == 3


def test_a_dead_link_still_holds_its_items() -> None:
    """Its id resolves to nothing, but its descendants were promised them."""
    dead = msgspec.structs.replace(LINKS[0], alive=False)
    assert list(History(restore([dead, *LINKS[1:]], nobody), ()).items()) == list(
        History(restore(LINKS, nobody), ()).items()
    )


def test_turns_that_are_in_memory_are_shared() -> None:
    """A restored branch hangs on the chain that is there."""
    root = turn_of(sample_record("root"), None)
    middle = turn_of(sample_record("middle", "root"), root)
    tip = restore(LINKS, {middle.id: middle}.get)
    assert tip.parent is middle
    assert path(tip)[0] is root


def test_a_chain_that_is_in_memory_as_a_whole_is_returned_as_it_is() -> None:
    """Nothing is made twice."""
    tip = turn_of(sample_record("tip"), None)
    assert restore(LINKS, {tip.id: tip}.get) is tip


def test_a_link_is_a_record_without_what_only_its_own_id_can_ask_for() -> None:
    """A store reads a chain of them in one query."""
    assert set(ChainLink.__struct_fields__) - {"alive"} < set(Record.__struct_fields__)
