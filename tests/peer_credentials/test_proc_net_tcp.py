"""The tables of /proc, as Linux writes them."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.peer_credentials.proc_net_tcp import user_in
from tests.peer_credentials.connections import IPV4, IPV6

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#: Its words are numbers of this machine: written here for one that has the low byte first, and turned on others.
PEER, OWN = "0100007F:9C40", "0200007F:128C"


def words(text: str) -> str:
    if sys.byteorder == "little":
        return text
    address, _, port = text.partition(":")
    groups = struct.iter_unpack("<I", bytes.fromhex(address))
    return "".join(f"{group:08X}" for (group,) in groups) + f":{port}"


def row(peer: str, own: str, *, state: str = "01", user: str = "1000", inode: str = "3644674") -> str:
    ends = f"{words(peer)} {words(own)}"
    return f"   1: {ends} {state} 00000000:00000000 00:00000000 00000000  {user:>4}        0 {inode} 1\n"


def test_the_row_of_the_peers_end_tells_its_user() -> None:
    table = HEAD + row(OWN, PEER, user="1") + row(PEER, OWN)
    assert user_in(table, IPV4, ipv6=False) == 1000
    assert user_in(HEAD + row(OWN, PEER), IPV4, ipv6=False) is None
    assert user_in(table, IPV6, ipv6=False) is None


def test_an_ipv6_socket_may_speak_ipv4() -> None:
    mapped = "0000000000000000FFFF0000"
    table = HEAD + row(mapped + PEER, mapped + OWN)
    assert user_in(table, IPV4, ipv6=True) == 1000
    assert user_in(table, IPV4, ipv6=False) is None


def test_an_ipv6_connection_is_in_the_second_table() -> None:
    table = HEAD + row("00000000000000000000000001000000:9C40", "000080FE000000000000000001000000:128C", user="7")
    assert user_in(table, IPV6, ipv6=True) == 7


@pytest.mark.parametrize(
    "told",
    [
        row(PEER, OWN, inode="0", user="0"),  # closed by its program
        row(PEER, OWN, state="02"),
        row(PEER, OWN, state="06"),
        row(PEER, OWN, user="x"),
        row(PEER, OWN)[:60] + "\n",
    ],
)
def test_what_is_not_an_open_socket_has_no_user(told: str) -> None:
    assert user_in(HEAD + told, IPV4, ipv6=False) is None


@given(st.text(max_size=300))
def test_no_table_breaks_it(table: str) -> None:
    assert user_in(table, IPV4, ipv6=False) is None
    found = f" {words(PEER)} {words(OWN)} {table}"
    user_in(found, IPV4, ipv6=False)
