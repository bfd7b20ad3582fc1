from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from segue.tunnel.folds.json import Compactor, FoldOutput, escaped

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a "\\\n\tü😀'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a "\\', max_size=3), inner, max_size=3)
    ),
)


@given(VALUES, st.sampled_from([None, 0, 3]), st.integers(1, 7))
def test_white_space_goes_outside_of_strings_only_however_the_text_is_cut(
    value: object, indent: int | None, step: int
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    compactor = Compactor()
    kept = "".join(compactor.feed(text[at : at + step]) for at in range(0, len(text), step))
    assert kept == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_only_what_must_be_escaped_is() -> None:
    assert escaped('a"\\/\b\f\n\r\t\x00\x1f\x7f<>&\u2028é') == (
        b'a\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f<>&\xe2\x80\xa8\xc3\xa9'
    )


def test_an_output_is_cut_at_its_limit_for_good() -> None:
    output = FoldOutput(5)
    output.write(b"abc", b"def", b"g")
    assert bytes(output.data) == b"abcde"
    assert output.full
