"""Two bodies side by side: what counts as a repetition, and what does not."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.sidecar.body_alignment import MAX_MISSING_BYTES, Alignment, align
from tests.strategies import examples

TEXT = random.Random(1).randbytes(20_000).hex().encode()
NEWS = random.Random(2).randbytes(2_000).hex().encode()


def test_a_body_repeats_itself_and_what_follows_is_inserted() -> None:
    assert align(TEXT, TEXT) == Alignment(len(TEXT), ((len(TEXT), len(TEXT)),))
    assert align(TEXT, TEXT + NEWS) == Alignment(len(TEXT), ((len(TEXT), len(TEXT) + len(NEWS)),))


def test_what_is_inserted_in_the_middle_is_told() -> None:
    later = b"[" + TEXT[:30_000] + NEWS + TEXT[30_000:]
    aligned = align(TEXT, later)
    assert aligned == Alignment(len(TEXT), ((0, 1), (30_001, 34_001), (len(later), len(later))))


def test_a_marker_that_has_moved_is_missing_and_nothing_else() -> None:
    marker = b',"cache_control":{"type":"ephemeral"}'
    earlier = TEXT[:9_000] + marker + TEXT[9_000:20_000] + marker + TEXT[20_000:]
    later = TEXT[:20_000] + marker + TEXT[20_000:30_000] + NEWS + marker + TEXT[30_000:]
    aligned = align(earlier, later)
    assert aligned is not None
    assert len(TEXT) - 300 < aligned.shared_bytes <= len(TEXT) + len(marker)


def test_another_body_is_none() -> None:
    other = random.Random(3).randbytes(20_000).hex().encode()
    assert align(TEXT, other) is None
    assert align(TEXT, TEXT[: -2 * MAX_MISSING_BYTES]) is None
    assert align(TEXT[:10_000] + other[:5_000] + TEXT[10_000:], TEXT) is None
    assert align(TEXT, b"".join(TEXT[at : at + 90] + b"-" for at in range(0, len(TEXT), 100))) is None


@settings(max_examples=examples(150))
@given(st.binary(max_size=400), st.binary(max_size=400), st.integers(0, 400), st.binary(max_size=60))
def test_what_is_counted_is_there(earlier: bytes, other: bytes, at: int, inserted: bytes) -> None:
    for later in (other, earlier[:at] + inserted + earlier[at:]):
        aligned = align(earlier, later)
        assert aligned is not None  # both are so short that all of them may be missing
        assert 0 <= aligned.shared_bytes <= min(len(earlier), len(later))
        assert all(0 <= begin <= end <= len(later) for begin, end in aligned.insertions)
        inserted_bytes = sum(end - begin for begin, end in aligned.insertions)
        assert aligned.shared_bytes + inserted_bytes == len(later)
