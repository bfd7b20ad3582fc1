"""Sealed reasoning says whose it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.sealed_reasoning import SealedReasoning, seal, unseal


@given(provider=st.text(max_size=8), content=st.text(max_size=8))
def test_what_was_sealed_comes_back(provider: str, content: str) -> None:
    assert unseal(seal(provider, content)) == SealedReasoning(provider, content)


@given(content=st.text().filter(lambda text: not text.startswith("segue:")))
def test_what_nobody_sealed_is_nobodys(content: str) -> None:
    assert unseal(content) == SealedReasoning(None, content)
