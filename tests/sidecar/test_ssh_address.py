"""`ssh://` addresses: what they name, and what is refused before any program sees it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.sidecar.ssh_address import SshAddress, is_ssh, parse_ssh_address
from tests.strategies import examples


@pytest.mark.parametrize(
    ("gateway", "address"),
    [
        ("ssh://host", SshAddress("host")),
        ("SSH://box.example.com/", SshAddress("box.example.com")),
        ("ssh://me@my_alias:2222", SshAddress("my_alias", "me", 2222)),
        ("ssh://first.last+x@10.0.0.1:65535", SshAddress("10.0.0.1", "first.last+x", 65535)),
        ("ssh://[::1]:22", SshAddress("::1", None, 22)),
        ("ssh://me@[fe80::1%eth0]", SshAddress("fe80::1%eth0", "me")),
    ],
)
def test_a_machine_is_named_as_ssh_names_it(gateway: str, address: SshAddress) -> None:
    assert is_ssh(gateway)
    assert parse_ssh_address(gateway) == address


@pytest.mark.parametrize(
    "gateway",
    [
        "ssh://",
        "ssh:///",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://me@-host",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:-1",
        "ssh://host:22x",
        "ssh://host:",
        "ssh://me:secret@host",
        "ssh://a@b@host",
        "ssh://host/path",
        "ssh://host?x",
        "ssh://host#x",
        "ssh://ho st",
        "ssh://host\n",
        "ssh://host;id",
        "ssh://$(id)",
        "ssh://`id`",
        "ssh://h%6fst",
        "ssh://hòst",
        "ssh://[host]",
        "ssh://[::1",
        "ssh://::1",
        "ssh://[-::1]",
        "ssh://" + "h" * 600,
        "ws://host",
        "host",
    ],
)
def test_everything_else_is_refused(gateway: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a machine to ssh to"):
        parse_ssh_address(gateway)


@settings(max_examples=examples(300))
@given(st.text(alphabet="a-@:[]/%.1 \\'\"$;", max_size=12))
def test_nothing_that_is_accepted_is_an_option_or_needs_quoting(rest: str) -> None:
    try:
        address = parse_ssh_address(f"ssh://{rest}")
    except ValueError:
        return
    for part in (address.host, address.user or "x"):
        assert part[0] != "-"
        assert not set(part) & set("@/[] \\'\"$;")
