"""Sealed summaries: what can be opened, by whom, and that nothing else is told apart."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.history.sealed_summaries import (
    MARK,
    MAX_SUMMARY_BYTES,
    MIN_SECRET_BYTES,
    NONCE_BYTES,
    SummarySealer,
    is_sealed_here,
)
from tests.strategies import examples

SECRET, OTHER = b"s" * MIN_SECRET_BYTES, b"o" * MIN_SECRET_BYTES
NONCE = bytes(range(NONCE_BYTES))
SEALER = SummarySealer([SECRET])

tenants = st.text(max_size=12)
summaries = st.text(max_size=200)


@given(tenant=tenants, summary=summaries, nonce=st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
@settings(max_examples=examples(200))
def test_what_was_sealed_for_a_tenant_is_opened_for_it(tenant: str, summary: str, nonce: bytes) -> None:
    sealed = SEALER.seal(tenant, summary, nonce)
    assert SEALER.unseal(tenant, sealed) == summary
    assert is_sealed_here(sealed)
    assert sealed.isascii()


@given(tenant=tenants, other=tenants, summary=summaries)
@settings(max_examples=examples(200))
def test_another_tenant_cannot_have_it_opened(tenant: str, other: str, summary: str) -> None:
    opened = SEALER.unseal(other, SEALER.seal(tenant, summary, NONCE))
    assert opened == (summary if other == tenant else None)


@given(data=st.data())
@settings(max_examples=examples(400))
def test_a_text_that_was_changed_is_not_opened(data: st.DataObject) -> None:
    """Wherever it is changed: its mark, its key id, its nonce, what is sealed, the tag, or its end."""
    sealed = SEALER.seal("alice", "what was said", NONCE)
    at = data.draw(st.integers(0, len(sealed)))
    piece = data.draw(st.text(st.characters(exclude_categories=()), max_size=3))
    until = data.draw(st.integers(at, min(len(sealed), at + 3)))
    changed = sealed[:at] + piece + sealed[until:]
    assert SEALER.unseal("alice", changed) == ("what was said" if changed == sealed else None)


@given(st.text(st.characters(exclude_categories=()), max_size=300))
@settings(max_examples=examples(200))
def test_any_text_is_read(text: str) -> None:
    ident = SEALER.seal("a", "", NONCE)[len(MARK) :].partition(".")[0]
    for sealed in (text, MARK + text, f"{MARK}{ident}.{text}"):
        assert SEALER.unseal("a", sealed) is None


def test_keys_are_replaced_one_by_one() -> None:
    """A gateway seals with its first secret, and opens what any of them has sealed."""
    old, both, new = SummarySealer([OTHER]), SummarySealer([SECRET, OTHER]), SummarySealer([SECRET])
    before, after = old.seal("a", "old", NONCE), both.seal("a", "new", NONCE)
    assert (both.unseal("a", before), both.unseal("a", after)) == ("old", "new")
    assert (new.unseal("a", before), new.unseal("a", after)) == (None, "new")
    assert old.unseal("a", after) is None


def test_the_id_of_another_key_does_not_help() -> None:
    both = SummarySealer([SECRET, OTHER])
    mine, theirs = both.seal("a", "x", NONCE), SummarySealer([OTHER]).seal("a", "x", NONCE)
    ident = theirs[len(MARK) :].partition(".")[0]
    assert both.unseal("a", f"{MARK}{ident}.{mine.rpartition('.')[2]}") is None


def test_nothing_of_the_summary_or_the_tenant_is_in_the_text() -> None:
    sealed = SEALER.seal("alice", "the code word is heron", NONCE)
    data = urlsafe_b64decode(sealed.rpartition(".")[2])
    assert b"heron" not in data
    assert b"alice" not in data
    assert data.startswith(NONCE)
    assert SEALER.seal("alice", "the code word is heron", bytes(NONCE_BYTES)) != sealed


def test_the_longest_summary_is_opened_and_a_longer_text_is_not_looked_at() -> None:
    """JSON writes a control character as six bytes."""
    longest = "\x01" * MAX_SUMMARY_BYTES
    sealed = SEALER.seal("a", longest, NONCE)
    assert SEALER.unseal("a", sealed) == longest
    assert SEALER.unseal("a", sealed + "A" * len(sealed)) is None


def test_a_nonce_alone_is_nothing() -> None:
    sealed = SEALER.seal("a", "x", NONCE)
    assert SEALER.unseal("a", f"{sealed.rpartition('.')[0]}.{urlsafe_b64encode(NONCE).decode()}") is None


@pytest.mark.parametrize(("secrets", "nonce"), [([], NONCE), ([b"short"], NONCE), ([SECRET], b"short")])
def test_weak_keys_and_nonces_are_mistakes(secrets: list[bytes], nonce: bytes) -> None:
    with pytest.raises(AssertionError):
        SummarySealer(secrets).seal("a", "x", nonce)
