"""Who may use a sidecar: its own user, whoever has the token, or anyone."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.request_rules import RequestRefusal
from segue.peer_credentials.lookup import PeerUsers, peer_users
from segue.sidecar.agent_access import AccessMode, AgentAccess
from tests.peer_credentials.connections import connected

BLIND = PeerUsers(())
TOKEN = "t0ken-of_16.chars"
TARGET = b"/anthropic/v1/messages?beta=true"
WITH_TOKEN = b"/t0ken-of_16.chars" + TARGET


def others() -> PeerUsers:
    """A platform that says of every connection but the first, by which it is tried, that it is another user's."""
    answers = iter([os.geteuid()])
    return PeerUsers((lambda _: next(answers, os.geteuid() + 1),))


@pytest.mark.parametrize(
    ("mode", "users", "token", "trusted", "needs_token"),
    [
        ("user", peer_users(), None, True, False),
        ("user", others(), None, False, False),
        ("user", others(), TOKEN, False, False),
        ("user", BLIND, None, False, True),
        ("user", BLIND, TOKEN, False, True),
        ("token", peer_users(), TOKEN, False, True),
        ("token", peer_users(), None, False, True),
        ("anyone", others(), None, True, False),
        ("anyone", BLIND, TOKEN, True, False),
    ],
)
def test_who_is_trusted_and_who_needs_a_token(
    mode: AccessMode,
    users: PeerUsers,
    token: str | None,
    trusted: bool,
    needs_token: bool,
) -> None:
    access = AgentAccess(mode, token, users)
    with connected() as (_, accepted):
        assert access.trusts(accepted) is trusted
    assert access.trusts(None) is (mode == "anyone")
    assert access.needs_token is needs_token
    assert access.has_drawn is (needs_token and token is None)
    assert access.base_url("http://h:1") == (f"http://h:1/{access.token}" if needs_token else "http://h:1")


@pytest.mark.parametrize("trusted", [True, False])
def test_the_token_is_taken_off_and_opens_the_door(trusted: bool) -> None:
    access = AgentAccess("user", TOKEN, others())
    assert access.admit(WITH_TOKEN, trusted=trusted) == TARGET
    assert access.admit(b"/t0ken-of_16.chars", trusted=trusted) == b"/"
    assert access.admit(b"/t0ken-of_16.chars//x", trusted=trusted) == b"//x"


@pytest.mark.parametrize(
    "target",
    [
        TARGET,
        b"/",
        b"/t0ken-of_16.charsX/v1",
        b"/t0ken-of_16.char/v1",
        b"/x/t0ken-of_16.chars/",
        b"/t0ken-of_16.chars?",
    ],
)
def test_any_other_beginning_is_for_those_who_are_trusted(target: bytes) -> None:
    access = AgentAccess("user", TOKEN, others())
    assert access.admit(target, trusted=True) == target
    refusal = access.admit(target, trusted=False)
    assert isinstance(refusal, RequestRefusal)
    assert refusal.code == "forbidden_peer"
    assert "another user's" in refusal.message
    assert "SEGUE_SIDECAR_ACCESS" in refusal.message
    assert TOKEN not in refusal.message


def test_each_sidecar_draws_another_token_and_says_when_it_is_missing() -> None:
    one, other = (AgentAccess("token", None, BLIND) for _ in range(2))
    assert one.token != other.token
    assert len(one.token or "") >= 32
    refusal = one.admit(TARGET, trusted=False)
    assert isinstance(refusal, RequestRefusal)
    assert "wants its token" in refusal.message
    assert isinstance(AgentAccess("user", None, others()).admit(TARGET, trusted=False), RequestRefusal)


@given(st.binary(max_size=60).filter(lambda text: not text.startswith(b"t0ken-of_16.chars")))
def test_nothing_but_the_token_opens_the_door(rest: bytes) -> None:
    access = AgentAccess("token", TOKEN, BLIND)
    assert isinstance(access.admit(b"/" + rest, trusted=False), RequestRefusal)
