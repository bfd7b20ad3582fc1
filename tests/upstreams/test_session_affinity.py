"""The affinity key: one for each conversation, and it reveals nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.upstreams.conversation_key import ConversationKey
from segue.upstreams.session_affinity import SessionAffinity, affinity_key, fault_of_header
from tests.strategies import any_text, examples

SECRET = bytes(32)
TURN = ConversationKey("ann", "0badcafe")


@settings(max_examples=examples(200))
@given(any_text, st.from_regex(r"[0-9a-f]{8}", fullmatch=True), st.binary(max_size=32), st.booleans())
def test_the_key_can_stand_in_a_header(tenant: str, chain: str, start: bytes, replayed: bool) -> None:
    word = affinity_key(SECRET, ConversationKey(tenant, chain, start, replayed))
    assert len(word) == 32
    assert set(word) <= set("0123456789abcdef")


def test_all_turns_of_a_conversation_have_one_key() -> None:
    """Turns that continue a chain share a key; so do turns that send the history again, whatever their chain."""
    assert affinity_key(SECRET, ConversationKey("ann", "0badcafe", b"start")) == affinity_key(SECRET, TURN)
    again = [
        affinity_key(SECRET, ConversationKey("ann", chain, b"start", replayed=True))
        for chain in ("00000001", "00000002")
    ]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    ("secret", "other"),
    [
        (SECRET, ConversationKey("bob", "0badcafe")),
        (SECRET, ConversationKey("ann", "0badcaff")),
        (SECRET, ConversationKey("ann", "0badcafe", b"start", replayed=True)),
        (b"x" * 32, TURN),
    ],
    ids=["tenant", "chain", "replayed", "secret"],
)
def test_another_conversation_has_another_key(secret: bytes, other: ConversationKey) -> None:
    assert affinity_key(secret, other) != affinity_key(SECRET, TURN)


def test_each_tenant_has_its_secret() -> None:
    affinity = SessionAffinity("X-Session-ID", {"ann": SECRET, "bob": b"x" * 32}.__getitem__)
    assert affinity.header_line(TURN) == ("X-Session-ID", affinity_key(SECRET, TURN))


@pytest.mark.parametrize("name", ["X-Session-ID", "x-smg-routing-key", "X-User-Id", "te-x", "session"])
def test_most_headers_can_carry_it(name: str) -> None:
    assert fault_of_header(name) is None


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\r\nY", "\N{LATIN SMALL LETTER E WITH ACUTE}", "x\n"])
def test_what_is_no_name_cannot(name: str) -> None:
    assert "is not the name of a header" in (fault_of_header(name) or "")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Authorization",
            "HOST",
            "connection",
            "Content-Length",
            "content-type",
            "Transfer-Encoding",
            "TE",
            "Trailer",
        ),
        *("Upgrade", "Keep-Alive", "Proxy-Authorization", "Accept", "Accept-Encoding", "Cookie", "Expect", "x-api-key"),
    ],
)
def test_headers_with_a_meaning_cannot(name: str) -> None:
    assert "has a meaning of its own" in (fault_of_header(name) or "")
