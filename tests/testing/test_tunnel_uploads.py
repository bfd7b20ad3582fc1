"""The scanner of uploads finds each document, wherever it is cut, and knows what is no upload."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.testing.tunnel_uploads import SentDocument, UploadScanner

ASKS, WHOLE = b"\x01\x03\x02ab", b"\x02\x82\x01\x01" + bytes(129)
#: A raw block of two bytes, an RLE block of a thousand, and a last one without a byte.
STREAM = b"\0" + b"\x10\0\0ab" + b"\x42\x1f\0x" + b"\1\0\0"
#: The last block is an RLE block.
SHORT = b"\0\x13\0\0x"


@given(st.integers(1, 40))
def test_each_document_is_found_wherever_an_upload_is_cut(size: int) -> None:
    upload = ASKS + WHOLE + STREAM + ASKS + SHORT + WHOLE + STREAM
    scanner = UploadScanner()
    for at in range(0, len(upload), size):
        scanner.feed(upload[at : at + size])
    second, third = len(ASKS + WHOLE), len(ASKS + WHOLE + STREAM + ASKS)
    assert scanner.documents == [
        SentDocument(asks=True, end=len(ASKS)),
        SentDocument(asks=False, end=second),
        SentDocument(asks=True, end=third),
        SentDocument(asks=False, end=third + len(SHORT + WHOLE)),
    ]
    assert not scanner.lost


def test_an_empty_document_asks_for_nothing() -> None:
    scanner = UploadScanner()
    scanner.feed(b"\x01\x00")
    assert scanner.documents == [SentDocument(asks=False, end=2)]


@pytest.mark.parametrize(
    "upload", [b"\3", b"\x08", STREAM + b"\0", STREAM + b"\xff", b"\0\7\0\0", b"\1\x81\0", b"\1" + b"\xff" * 9]
)
def test_what_is_no_upload_is_known_as_such_and_read_no_further(upload: bytes) -> None:
    scanner = UploadScanner()
    scanner.feed(upload)
    scanner.feed(ASKS)
    assert scanner.lost
    assert not scanner.documents


@given(st.binary(max_size=30))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    UploadScanner().feed(data)
