"""The line table: both ends stay in step, whatever the heads."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead
from segue.http.varints import encode_varint
from segue.tunnel import static_table
from segue.tunnel.header_table import (
    MAX_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEAD_LINES,
    MAX_LINE_BYTES,
    MAX_LINES,
    HeaderTable,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    fits,
)
from tests.strategies import examples

NAMES = st.one_of(
    st.sampled_from([b"Accept", b"accept", b"X-Key", b"x-\xe9"]),
    st.binary(max_size=8).map(lambda name: name.replace(b":", b"")),
)
VALUES = st.one_of(
    st.sampled_from([b"", b"1", b"a:b", b":", b"caf\xe9"]),
    st.binary(max_size=30),
    st.integers(0, 2).map(lambda more: b"v" * (MAX_LINE_BYTES - 5 + more)),
)
LINES = st.lists(st.builds(Line, NAMES, VALUES), max_size=12).map(tuple)
TARGETS = st.sampled_from([b"/", b"/v1/messages?beta=true", b"/a:b", b"/two words"])
REQUESTS = st.builds(RequestHead, st.sampled_from([b"GET", b"POST"]), TARGETS, LINES)
REPLIES = st.builds(ReplyHead, st.integers(100, 999), st.sampled_from([b"", b"OK", b"Not Found"]), LINES)
KINDS: st.SearchStrategy[ExchangeKind] = st.sampled_from(("http", "websocket"))


@settings(max_examples=examples(300))
@given(st.lists(st.tuples(REQUESTS, KINDS), max_size=8))
def test_requests_arrive_as_they_were_sent_and_the_tables_are_the_same(
    heads: list[tuple[RequestHead, ExchangeKind]],
) -> None:
    sender, receiver = HeaderTable(), HeaderTable()
    for head, kind in heads:
        assert decode_request(encode_request(head, kind, sender), receiver) == (head, kind)
        assert vars(sender) == vars(receiver)


@settings(max_examples=examples(300))
@given(st.lists(REPLIES, max_size=8))
def test_replies_arrive_as_they_were_sent_and_the_tables_are_the_same(heads: list[ReplyHead]) -> None:
    sender, receiver = HeaderTable(), HeaderTable()
    for head in heads:
        assert decode_reply(encode_reply(head, sender), receiver) == head
        assert vars(sender) == vars(receiver)


@pytest.mark.parametrize("count", [400, pytest.param(4_000, marks=pytest.mark.deep)])
def test_tables_stay_in_step_over_many_heads_that_push_lines_out(count: int) -> None:
    chance = random.Random(1)
    sender, receiver = HeaderTable(), HeaderTable()
    for _ in range(count):
        lines = tuple(
            Line(
                b"X-%d" % chance.randrange(40),
                b"v" * chance.choice((0, 1, 20, 400, 4_090)) + b"%d" % chance.randrange(9),
            )
            for _ in range(chance.randrange(20))
        )
        head = RequestHead(b"POST", b"/v1/%d" % chance.randrange(300), lines)
        assert decode_request(encode_request(head, "http", sender), receiver) == (head, "http")
        held = [line for slot in range(2 * MAX_LINES) if (line := sender.get(slot)) is not None]
        assert len(held) <= MAX_LINES
        assert sum(map(len, held)) <= MAX_BYTES
        assert all(sender.get(slot) is None for slot in range(MAX_LINES, 2 * MAX_LINES))
    assert vars(sender) == vars(receiver)
    assert len(sender._by_name) <= MAX_LINES  # noqa: SLF001 - as above


def test_a_head_that_was_sent_before_is_next_to_nothing() -> None:
    table = HeaderTable()
    lines = tuple(Line(b"X-%d" % index, b"value") for index in range(10))
    head = RequestHead(b"POST", b"/v1/messages", lines)
    encode_request(head, "http", table)
    assert encode_request(head, "http", table) == b"\x00\x03\x0b"
    changed = replace(head, lines=(*lines[:9], Line(b"X-9", b"other")))
    assert len(encode_request(changed, "http", table)) == 3 + 3 + len(b"other")
    shifted = replace(head, lines=lines[1:])
    assert len(encode_request(shifted, "http", table)) == 1 + 10


def test_preset_lines_go_by_reference_from_the_first() -> None:
    for lines in (static_table.REQUEST, static_table.REPLY):
        table = HeaderTable(lines)
        assert [table.find(line) for line in lines] == list(range(len(lines)))
    table = HeaderTable(static_table.REQUEST)
    known = (Line(b"Content-Type", b"application/json"), Line(b"X-Stainless-Lang", b"python"))
    head = RequestHead(b"GET", b"/", (*known, Line(b"Authorization", b"Bearer k")))
    encoded = encode_request(head, "http", table)
    assert len(encoded) == 1 + 2 + len(b"GET /") + 2 + 3 + len(b"Bearer k")
    assert decode_request(encoded, HeaderTable(static_table.REQUEST)) == (head, "http")


def test_a_repetition_of_what_was_not_is_no_head() -> None:
    for count in (b"\x00", b"\x03", b"\xff\xff\xff\xff\x0f"):
        receiver = HeaderTable()
        assert decode_request(b"\x00\x00\x05GET /\x00\x02a:", receiver) is not None
        assert decode_request(b"\x00\x03" + count, receiver) is None


def test_a_long_line_is_held_in_no_slot_and_pushes_nothing_out() -> None:
    table = HeaderTable()
    head = RequestHead(b"GET", b"/", (Line(b"Cookie", b"c" * MAX_LINE_BYTES),))
    assert len(encode_request(head, "http", table)) > MAX_LINE_BYTES
    elsewhere = replace(head, lines=(Line(b"A", b""), *head.lines))
    assert len(encode_request(elsewhere, "http", table)) > MAX_LINE_BYTES
    assert [slot for slot in range(MAX_LINES) if table.get(slot)] == [0, 1], "the request line, and the short one"


@settings(max_examples=examples(300))
@given(st.binary(max_size=60), st.lists(REQUESTS, max_size=2))
def test_any_bytes_are_a_head_or_none(data: bytes, before: list[RequestHead]) -> None:
    for head in before:
        table = HeaderTable()
        encode_request(head, "http", table)
        decode_request(data, table)
        decode_reply(data, table)
    decode_request(data, HeaderTable())
    decode_reply(data, HeaderTable())


@settings(max_examples=examples(300))
@given(REQUESTS, st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_changed_head_never_raises(head: RequestHead, at: int, change: bytes) -> None:
    encoded = encode_request(head, "http", HeaderTable())
    at %= len(encoded)
    decode_request(encoded[:at] + change + encoded[at + len(change) :], HeaderTable())
    decode_request(encoded[:at], HeaderTable())


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\x02",  # no such kind
        b"\x00",  # no request line
        b"\x00\x00\x03GET",  # no target
        b"\x00\x00\x02 /",  # no method
        b"\x00\x00\x05GET /\x00\x03abc",  # a line without a colon
        b"\x00\x00\x06GET /",  # cut off
        b"\x00\x04",  # a slot that holds nothing
        b"\x00\x03\x01",  # a line of a head before, when there was none
        b"\x00\x03",  # as many lines as what?
        b"\x00\x02\x00\x01a",  # a name in a slot that holds nothing
        b"\x00\x02",  # a name in which slot?
        b"\x00\x02\xff",  # a slot whose number is cut off
        b"\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x3f",  # a length that is not there
    ],
)
def test_what_is_no_request_is_none(encoded: bytes) -> None:
    assert decode_request(encoded, HeaderTable()) is None


@pytest.mark.parametrize("first", [b"20 OK", b"2000 OK", b"abc", b"+20 x", b"\xb2\xb2\xb2 OK", b""])
def test_what_has_no_status_is_no_reply(first: bytes) -> None:
    assert decode_reply(bytes([0, len(first)]) + first, HeaderTable()) is None


def test_a_line_without_a_name_makes_no_reply() -> None:
    encoded = b"".join(bytes([0, len(line)]) + line for line in (b"200 OK", b"nameless"))
    assert decode_reply(encoded, HeaderTable()) is None


def test_references_that_expand_beyond_the_limit_are_no_head() -> None:
    table = HeaderTable()
    large = Line(b"X", b"v" * 4_000)
    encoded = encode_request(RequestHead(b"GET", b"/", (large,)), "http", table)
    receiver = HeaderTable()
    assert decode_request(encoded, receiver) is not None
    assert decode_request(b"\x00\x04" + b"\x05" * 20, receiver) is not None
    assert decode_request(b"\x00\x04" + b"\x05" * 200, receiver) is None
    assert decode_request(b"\x00" + b"\x04" * 5_000, receiver) is None


def test_a_head_may_expand_to_the_limit_and_no_further() -> None:
    for size, fits_in in ((2 * MAX_HEAD_BYTES, True), (2 * MAX_HEAD_BYTES + 1, False)):
        line = b"a:" + bytes(size - len(b"GET /a:") - 2 * 2)  # two more bytes are counted for each line
        encoded = b"\x00\x00\x05GET /\x01" + encode_varint(len(line)) + line
        assert (decode_request(encoded, HeaderTable()) is not None) is fits_in


def test_a_table_holds_lines_up_to_its_size() -> None:
    table = HeaderTable()
    lines = [b"%04d" % number + bytes(1020) for number in range(MAX_BYTES // 1024)]
    for line in lines:
        table.add(line)
    assert [table.find(line) for line in lines] == list(range(len(lines)))
    table.add(b"x")
    assert (table.find(lines[0]), table.find(b"x"), table.find(lines[1])) == (None, 0, 1)


def test_lines_that_were_used_stay_longer() -> None:
    table = HeaderTable()
    lines = [b"%04d" % number + bytes(1020) for number in range(MAX_BYTES // 1024)]
    for line in lines:
        table.add(line)
    table.use([b"unknown", lines[0]])
    table.add(b"x")
    assert (table.find(lines[0]), table.find(lines[1]), table.find(b"x")) == (0, None, 1)


def test_a_name_ends_at_the_first_colon() -> None:
    table = HeaderTable()
    first, second = (RequestHead(b"GET", b"/", (Line(b"X-Long-Name", b"a:%d" % n),)) for n in range(2))
    encode_request(first, "http", table)
    assert len(encode_request(second, "http", table)) == 1 + 1 + 3 + len(b"a:1")


def test_new_values_of_lines_in_any_slot_are_sent_behind_their_slot() -> None:
    sender, receiver = HeaderTable(), HeaderTable()
    for value in (b"a", b"b" * 127, b"c" * 128, b""):
        for number in range(MAX_LINES - 1):
            head = ReplyHead(200, b"OK", (Line(b"X-%d" % number, value),))
            encoded = encode_reply(head, sender)
            assert decode_reply(encoded, receiver) == head
            assert vars(sender) == vars(receiver)
            behind = encode_varint(len(value)) + value
            assert value == b"a" or (encoded.endswith(behind) and len(encoded) <= 1 + 3 + len(behind))


@pytest.mark.parametrize("slot", [b"\x80\x00", b"\x80\x02", b"\xff\x01", b"\x80\x80\x01"])
def test_a_slot_that_is_none_names_no_line(slot: bytes) -> None:
    table = HeaderTable(b"a%d:" % number for number in range(200))
    assert decode_reply(b"\x00\x06200 OK\x02" + slot + b"\x01x", table) is None


def test_what_fits_can_be_decoded() -> None:
    most = tuple(Line(b"a", b"") for _ in range(MAX_HEAD_LINES))
    largest = (Line(b"a", bytes(MAX_HEAD_BYTES - 5)),)
    for lines in (most, largest):
        head = RequestHead(b"GET", b"/", lines)
        assert fits(head)
        assert decode_request(encode_request(head, "http", HeaderTable()), HeaderTable()) == (head, "http")
    assert not fits(RequestHead(b"GET", b"/", (*most, Line(b"a", b""))))
    assert not fits(ReplyHead(200, b"OK....", largest))


HEADS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "heads.json").read_text())


def test_the_heads_of_the_specification_are_read_and_written_as_it_says() -> None:
    sender, receiver = HeaderTable(static_table.REQUEST), HeaderTable(static_table.REQUEST)
    for one in HEADS["requests"]:
        request = RequestHead(bytes.fromhex(one["method"]), bytes.fromhex(one["target"]), lines_in(one["lines"]))
        assert encode_request(request, one["kind"], sender).hex() == one["encoded"]
        assert decode_request(bytes.fromhex(one["encoded"]), receiver) == (request, one["kind"])
    sender, receiver = HeaderTable(static_table.REPLY), HeaderTable(static_table.REPLY)
    for one in HEADS["replies"]:
        reply = ReplyHead(one["status"], bytes.fromhex(one["reason"]), lines_in(one["lines"]))
        assert encode_reply(reply, sender).hex() == one["encoded"]
        assert decode_reply(bytes.fromhex(one["encoded"]), receiver) == reply


@pytest.mark.parametrize("vector", HEADS["bad_requests"], ids=lambda vector: vector["name"])
def test_a_bad_head_of_a_request_is_none(vector: dict[str, str]) -> None:
    assert decode_request(bytes.fromhex(vector["encoded"]), HeaderTable(static_table.REQUEST)) is None


@pytest.mark.parametrize("vector", HEADS["bad_replies"], ids=lambda vector: vector["name"])
def test_a_bad_head_of_a_reply_is_none(vector: dict[str, str]) -> None:
    assert decode_reply(bytes.fromhex(vector["encoded"]), HeaderTable(static_table.REPLY)) is None


def test_a_full_table_drops_the_lines_that_the_specification_says() -> None:
    receiver = HeaderTable(static_table.REPLY)
    for step in HEADS["eviction"]["steps"]:
        head = decode_reply(bytes.fromhex(step["encoded"]), receiver)
        assert head is not None
        assert len(head.lines) == step["lines"]
        slots = [(slot, line) for slot in range(256) if (line := receiver.get(slot)) is not None]
        assert len(slots) == step["slots"]
        assert zlib.crc32(b"".join(b"%d %b\n" % one for one in slots)) == step["held"]
    counts = [step["slots"] for step in HEADS["eviction"]["steps"]]
    assert max(counts) == 256
    assert counts[-1] < 100, "lines left for their bytes too"


def lines_in(listed: list[list[str]]) -> tuple[Line, ...]:
    return tuple(Line(bytes.fromhex(name), bytes.fromhex(value)) for name, value in listed)
