"""The question to the kernel and its answer, as bytes of the structures in <linux/inet_diag.h>."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.peer_credentials.inet_diag import question, user_of
from tests.peer_credentials.connections import IPV4, IPV6


def answer(*, kind: int = 20, state: int = 1, user: int = 1000, inode: int = 77) -> bytes:
    body = struct.pack("=BBBB", 2, state, 0, 0) + b"\0" * 48 + struct.pack("=IIIII", 0, 0, 0, user, inode)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 1) + body


def test_the_question_names_one_socket_with_the_peer_as_its_source() -> None:
    four = question(IPV4)
    assert len(four) == 72
    assert struct.unpack_from("=IHHII", four) == (72, 20, 1, 0, 0)
    assert four[16:24] == b"\x02\x06\0\0\xff\xff\xff\xff"
    assert four[24:28] == b"\x9c\x40\x12\x8c"
    assert four[28:60] == b"\x7f\0\0\x01".ljust(16, b"\0") + b"\x7f\0\0\x02".ljust(16, b"\0")
    assert four[60:] == b"\0" * 4 + b"\xff" * 8
    six = question(IPV6)
    assert six[16:18] == b"\x0a\x06"
    assert six[28:60] == IPV6.peer + IPV6.own
    assert six[60:64] == struct.pack("=I", 3)


@pytest.mark.parametrize("state", [1, 4, 5, 8])
def test_an_open_socket_has_its_user(state: int) -> None:
    assert user_of(answer(state=state)) == 1000
    assert user_of(answer(state=state, user=0)) == 0


@pytest.mark.parametrize(
    "told",
    [
        answer(inode=0, user=0),  # closed by its program: user 0 is nobody here
        answer(state=2),  # not connected yet, or for the second time
        answer(state=6, user=0),
        answer(kind=2),  # NLMSG_ERROR, as for a socket that is not there
        answer()[:-1],
        b"",
    ],
)
def test_what_is_not_an_open_socket_has_none(told: bytes) -> None:
    assert user_of(told) is None


@given(st.binary(max_size=200))
def test_no_answer_breaks_it(told: bytes) -> None:
    assert user_of(told) is None or len(told) >= 88
