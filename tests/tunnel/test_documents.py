from __future__ import annotations

import gzip
import hashlib
import random
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.content_coding import Gzip, Unwrapped, unwrap
from segue.http.varints import encode_varint
from segue.tunnel.documents import (
    BASE_ID_BYTES,
    MAX_BODY_BYTES,
    Base,
    BaseMiss,
    Body,
    DocumentError,
    declared_size,
    decode_document,
    encode_document,
)
from tests.strategies import examples

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HEADER_BYTES = 1 + 1 + 16
BODIES = st.binary(max_size=200) | st.text(alphabet="ab {}", max_size=500).map(str.encode)


def text(seed: int, size: int) -> bytes:
    """Prose of words that repeat, as it is in conversations."""
    choose = random.Random(seed)
    words = [bytes(choose.choices(b"etaoinshrdlucmfwyp", k=choose.randint(2, 9))) for _ in range(2000)]
    return b" ".join(choose.choices(words, k=size // 5))[:size]


BASE = Base(text(1, 3000), text(2, 300))
BODY = text(1, 3000) + text(3, 300)


def no_base(base_id: bytes) -> Base | None:
    return None


def decode(document: bytes, *bases: Base, limit: int = MAX_BODY_BYTES) -> Body | BaseMiss | DocumentError:
    return decode_document(document, {base.id: base for base in bases}.get, limit)


def header(coding: int, size: int, digest: bytes, reference: bytes = b"") -> bytes:
    return bytes((coding,)) + reference + encode_varint(size) + digest[:16]


@given(BODIES, st.none() | st.builds(Base, BODIES, BODIES), st.data())
def test_a_body_comes_out_as_it_went_in(body: bytes, base: Base | None, data: st.DataObject) -> None:
    covered = data.draw(st.none() | st.integers(0, len(base.reply))) if base else None
    document = encode_document(body, base, covered)
    decoded = decode(document, *([base] if base else []))
    assert decoded == Body(body, body, Base(body).id)
    assert len(document) <= len(body) + HEADER_BYTES + 1


@given(BODIES, st.binary(max_size=100))
def test_the_id_of_a_base_is_that_of_its_body(body: bytes, reply: bytes) -> None:
    base = Base(body, reply)
    assert base.id == hashlib.sha256(body).digest()[:BASE_ID_BYTES]
    assert base.size == len(body) + len(reply)
    decoded = decode(encode_document(body))
    assert isinstance(decoded, Body)
    again = decoded.as_base(reply)
    assert (again.id, again.body, again.reply) == (base.id, body, reply)


@given(st.binary(max_size=120))
def test_garbage_is_an_error_and_nothing_is_raised(document: bytes) -> None:
    assert isinstance(decode(document), DocumentError | BaseMiss)


@settings(max_examples=examples(300))
@given(st.integers(0, 10_000), st.integers(1, 255), st.booleans())
def test_a_changed_byte_never_gives_a_body(at: int, flip: int, with_base: bool) -> None:
    document = bytearray(encode_document(BODY, BASE if with_base else None))
    document[at % len(document)] ^= flip
    decoded = decode(bytes(document), BASE)
    if isinstance(decoded, Body):  # less of the reply may be covered without any difference
        assert decoded.sent == BODY


@pytest.mark.parametrize("with_base", [False, True])
def test_a_truncated_document_never_gives_a_body(with_base: bool) -> None:
    base = Base(text(1, 3000)) if with_base else None
    document = encode_document(text(1, 2000), base)
    for size in range(len(document)):
        assert isinstance(decode(document[:size], *([base] if base else [])), DocumentError | BaseMiss)


@pytest.mark.parametrize("body", [b"abc", text(1, 3000)])
def test_bytes_after_the_end_are_an_error(body: bytes) -> None:
    assert isinstance(decode(encode_document(body) + b"x"), DocumentError)


def test_a_document_over_the_limit_is_refused_before_it_is_expanded() -> None:
    document = encode_document(bytes(50_000_000))
    assert len(document) < 3000
    assert decode(document, limit=49_999_999) == DocumentError(
        "the body has 50000000 bytes, more than 49999999", too_large=True
    )
    assert isinstance(decode(document, limit=50_000_000), Body)


@pytest.mark.parametrize("coding", [0, 1, 2, 3])
def test_the_limit_comes_before_the_base(coding: int) -> None:
    document = header(coding, 2**40, bytes(16), bytes(BASE_ID_BYTES) + b"\0" if coding >= 2 else b"")
    assert isinstance(decoded := decode(document), DocumentError)
    assert decoded.too_large


@pytest.mark.parametrize("declared", [0, 1, 2999, 3001, 1_000_000])
def test_a_body_of_another_size_than_declared_is_an_error(declared: int) -> None:
    body = text(1, 3000)
    blocks = encode_document(body)[1 + len(encode_varint(3000)) + 16 :]
    document = header(1, declared, hashlib.sha256(body).digest()) + blocks
    assert isinstance(decode(document), DocumentError)
    assert decode(header(1, 3000, hashlib.sha256(body).digest()) + blocks) == Body(body, body, Base(body).id)
    assert isinstance(decode(header(0, declared, hashlib.sha256(body).digest()) + body), DocumentError)


@pytest.mark.parametrize("coding", [8, 9, 0x10, 0x80, 0xFF])
def test_an_unknown_coding_is_an_error(coding: int) -> None:
    assert decode(header(coding, 3, hashlib.sha256(b"abc").digest()) + b"abc") == DocumentError(
        "the header is malformed"
    )


@pytest.mark.parametrize(("size", "coding"), [(3000, 3), (500_000, 3), (530_000, 2)])
def test_a_delta_of_up_to_a_mebibyte_with_its_base_starts_with_preset_tables(size: int, coding: int) -> None:
    base = Base(text(1, size), text(2, 300))
    document = encode_document(base.body + text(3, 300), base)
    assert document[0] == coding
    assert isinstance(decode(document, base), Body)


def test_a_small_delta_without_preset_tables_gives_its_body_too() -> None:
    delta = zstd.ZstdCompressor(
        options={
            zstd.CompressionParameter.content_size_flag: 0,
            zstd.CompressionParameter.window_log: 17,
        },
        zstd_dict=zstd.ZstdDict(BASE.body + BASE.reply, is_raw=True).as_prefix,
    ).compress(BODY, zstd.ZstdCompressor.FLUSH_FRAME)[6:]
    reference = BASE.id + encode_varint(len(BASE.reply))
    document = header(2, len(BODY), hashlib.sha256(BODY).digest(), reference) + delta
    assert decode(document, BASE) == Body(BODY, BODY, Base(BODY).id)
    assert len(encode_document(BODY, BASE)) < len(document)


def test_a_wrong_digest_is_an_error_without_a_base_and_a_miss_with_one() -> None:
    assert decode(header(0, 3, bytes(32)) + b"abc") == DocumentError("the body has another digest")
    base = Base(text(1, 3000))
    document = bytearray(encode_document(text(1, 3000), base))
    document[1 + BASE_ID_BYTES + 1 + 2] ^= 1
    assert decode(bytes(document), base) == BaseMiss(base.id, "the body has another digest")


def test_an_unknown_base_is_a_miss() -> None:
    base = Base(text(1, 3000))
    document = encode_document(text(1, 3000), base)
    assert decode_document(document, no_base) == BaseMiss(base.id, "the base is not here")


def test_a_base_with_less_of_the_reply_serves_what_covers_no_more() -> None:
    body, reply = text(1, 3000), text(2, 500)
    mine, theirs = Base(body, reply), Base(body, reply[:200])
    assert decode(encode_document(body + reply, mine), theirs) == BaseMiss(mine.id, "the reply in the base is shorter")
    assert isinstance(decode(encode_document(body + reply, mine, 200), theirs), Body)


def test_a_base_whose_reply_differs_is_a_miss() -> None:
    body = text(1, 3000)
    mine, theirs = Base(body, text(2, 500)), Base(body, text(3, 500))
    assert isinstance(decode(encode_document(body + text(2, 500), mine), theirs), BaseMiss)


def test_what_does_not_get_smaller_is_sent_as_it_is() -> None:
    body = random.Random(1).randbytes(1000)
    assert encode_document(body) == header(0, 1000, hashlib.sha256(body).digest()) + body
    assert encode_document(body, Base(random.Random(2).randbytes(500))) == encode_document(body)


@pytest.mark.parametrize("size", [30_000, 300_000, 2_000_000, 20_000_000])
def test_three_kilobytes_of_news_cost_ten_at_most_whatever_the_size(size: int) -> None:
    choose = random.Random(size)
    old, tail = choose.randbytes(size // 2).hex().encode(), choose.randbytes(2000).hex().encode()
    reply, news = text(5, 6000), text(6, 3000)
    base = Base(old + tail, reply)
    body = old + reply + news + tail
    document = encode_document(body, base)
    assert len(document) < (2500 if size < 10_000_000 else 10_000)
    decoded = decode(document, base)
    assert isinstance(decoded, Body)
    assert decoded.sent == body


def test_a_turn_that_adds_nothing_new_costs_its_header_and_some_bytes() -> None:
    body, reply = text(1, 100_000), text(2, 1000)
    assert len(encode_document(body + reply + body[-3000:], Base(body, reply))) < 1 + 4 + 2 + 3 + 16 + 35


def test_a_wrapped_body_is_matched_inside_and_comes_out_as_it_was_sent() -> None:
    old, news = text(1, 50_000), text(2, 500)
    sent = gzip.compress(old + news, mtime=0)
    unwrapped = unwrap(sent, b"gzip")
    assert unwrapped is not None
    base = Base(old)
    document = encode_document(unwrapped, base)
    assert len(document) < 500
    decoded = decode(document, base)
    assert decoded == Body(sent, old + news, Base(old + news).id)


@pytest.mark.parametrize("size", [100, 1000, 5000, 300_000])
def test_any_zstd_expands_the_blocks_behind_the_head_of_the_specification(size: int) -> None:
    body = text(1, size) * 2
    header_bytes = 1 + len(encode_varint(len(body))) + 16
    window_log = max(10, (len(body) - 1).bit_length())
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes(((window_log - 10) << 3,)) + encode_document(body)[header_bytes:]
    assert zstd.ZstdDecompressor().decompress(frame) == body


def test_a_library_that_wraps_otherwise_makes_a_miss() -> None:
    sent = gzip.compress(text(1, 5000), mtime=0)
    other = Unwrapped(sent, text(1, 5000), Gzip(1, 7, 0, 3))
    assert decode(encode_document(other)) == BaseMiss(b"", "the body has another digest")


@pytest.mark.parametrize("wrapping", ["", "00", "010600", "0100000000", "0200", "020a", "03ff01", "030304", "04"])
def test_a_malformed_wrapping_is_an_error(wrapping: str) -> None:
    document = b"\x04\x03" + bytes.fromhex(wrapping) + hashlib.sha256(b"abc").digest()[: 16 if wrapping else 0]
    assert isinstance(decode(document), DocumentError)


def test_a_wrapped_body_that_is_over_the_limit_only_as_sent_is_refused() -> None:
    plain = random.Random(1).randbytes(1000)
    sent = gzip.compress(plain, 9, mtime=0)
    unwrapped = unwrap(sent, b"gzip")
    assert unwrapped is not None
    expected = DocumentError("the body as sent has more than 1000 bytes", too_large=True)
    assert decode(encode_document(unwrapped), limit=1000) == expected
    assert isinstance(decode(encode_document(unwrapped), limit=len(sent)), Body)


@pytest.mark.parametrize("size", [1023, 1024, 1025, 1026, 2047, 2048, 2049, 2050, 65_537])
def test_a_body_of_any_size_near_a_window_s_comes_out_as_it_went_in(size: int) -> None:
    body = text(1, 100) * (size // 100) + text(2, size % 100)
    decoded = decode(encode_document(body))
    assert isinstance(decoded, Body)
    assert decoded.sent == body


def test_a_document_declares_the_size_of_its_plain_body() -> None:
    unwrapped = unwrap(gzip.compress(BODY, mtime=0), b"gzip")
    assert unwrapped is not None
    documents = [encode_document(BODY), encode_document(BODY, BASE), encode_document(unwrapped), encode_document(b"")]
    assert list(map(declared_size, documents)) == [len(BODY)] * 3 + [0]
    assert list(map(declared_size, [b"", b"?", encode_document(BODY)[:15]])) == [0, 0, 0]


def test_a_body_as_it_is_has_the_declared_size_or_is_not_copied() -> None:
    for size in (0, 1, (1 << 20) + 1):
        document = encode_document(random.Random(size).randbytes(size))
        body = decode_document(bytearray(document), lambda _: None)
        assert isinstance(body, Body)
        assert body.sent == document[len(document) - size :]
        assert isinstance(decode_document(document + b"x", lambda _: None), DocumentError)


@pytest.mark.parametrize("body", [bytes(3 << 20), random.Random(1).randbytes(3 << 20)], ids=["expanded", "as it is"])
def test_others_can_work_between_the_pieces_of_a_large_body(body: bytes) -> None:
    pauses: list[int] = []
    decoded = decode_document(encode_document(body), lambda _: None, pause=lambda: pauses.append(1))
    assert isinstance(decoded, Body)
    assert decoded.sent == body
    assert len(pauses) >= 3


def test_the_blocks_of_a_large_body_are_not_copied_at_once() -> None:
    """That would take long, and nobody else could work meanwhile."""
    body = random.Random(1).randbytes(6 << 20) + bytes(2 << 20)
    document = encode_document(body)
    tracemalloc.start()
    try:
        decoded = decode_document(document, lambda _: None)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(decoded, Body)
    assert decoded.sent == body
    assert most < len(body) + len(document) / 2


@given(st.binary(max_size=40), st.integers(0, 3 << 20))
@settings(max_examples=examples(20), deadline=None)
def test_bytes_behind_the_blocks_are_refused_wherever_the_pieces_end(more: bytes, size: int) -> None:
    body = random.Random(size).randbytes(size) + bytes(2 << 20)
    document = encode_document(body)
    decoded = decode_document(document + more, lambda _: None)
    assert isinstance(decoded, DocumentError if more else Body)
    assert isinstance(decode_document(document[:-1], lambda _: None), DocumentError)
