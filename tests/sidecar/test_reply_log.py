"""What is kept of a reply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.sidecar.reply_log import ReplyLog


@given(st.integers(0, 40), st.lists(st.tuples(st.binary(max_size=12), st.floats(0, 1))))
def test_it_holds_all_within_its_bound_and_beyond_it_what_was_not_read(
    limit: int, steps: list[tuple[bytes, float]]
) -> None:
    log, all_of_it, read = ReplyLog(limit), b"", 0
    for data, share in steps:
        log.write(data)
        all_of_it += data
        assert log.end == len(all_of_it)
        assert log.read(read) == all_of_it[read:]
        read += int((len(all_of_it) - read) * share)
        log.release(read)
        assert log.read(read) == all_of_it[read:]
        assert log.replayable == (len(all_of_it) <= limit)
        if log.replayable:
            assert log.read(0) == all_of_it
        elif read:
            with pytest.raises(ValueError, match="released"):
                log.read(read - 1)
