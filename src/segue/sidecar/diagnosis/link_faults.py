"""What can be wrong on the way to a gateway, as a table: in which check it shows, how it is told, and its cure.

Pure. Not here: noticing a fault (`link_probe`), and what is well (`link_checks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec

LinkCheckName = Literal["name", "proxy", "tcp", "tls", "upgrade", "clock", "key", "version"]

FaultKind = Literal[
    "name_unknown",
    "name_silent",
    "proxy_unreachable",
    "proxy_silent",
    "proxy_wants_login",
    "proxy_refuses",
    "proxy_is_none",
    "tcp_refused",
    "tcp_silent",
    "tcp_unreachable",
    "tls_none",
    "tls_untrusted",
    "tls_expired",
    "tls_not_yet_valid",
    "tls_wrong_name",
    "tls_closed",
    "tls_silent",
    "tls_failed",
    "upgrade_silent",
    "upgrade_closed",
    "tls_wanted",
    "login_page",
    "redirected",
    "blocked_page",
    "gateway_away",
    "upgrade_not_passed",
    "other_server",
    "gateway_busy",
    "host_not_served",
    "gateway_refuses",
    "key_missing",
    "key_unknown",
    "version_differs",
    "no_messages",
    "no_tunnel",
    "clock_behind",
    "clock_ahead",
]


class LinkFault(msgspec.Struct, frozen=True):
    """One thing that is wrong. `detail`: a figure, or words of a library or a peer."""

    kind: FaultKind
    detail: str = ""


class FaultText(NamedTuple):
    """The check that a fault fails, what is found, and the cure. Both may name `{gateway}`, `{hop}` and `{detail}`.

    `hop` is what the connection is made to: the gateway, or the proxy before it.
    """

    check: LinkCheckName
    finding: str
    cure: str


_PAGE = "Open any page in a browser, log in to this network, and try again."
_PROXY_SETTING = "[sidecar] proxy (SEGUE_SIDECAR_PROXY, HTTPS_PROXY)"

FAULTS: Mapping[FaultKind, FaultText] = MappingProxyType(
    {
        "name_unknown": FaultText(
            "name",
            "no address is known for {hop}: {detail}",
            "Correct the name if it is misspelt; if other names fail too, this machine is offline or its DNS is wrong.",
        ),
        "name_silent": FaultText(
            "name",
            "no name server has answered for {hop} within {detail}",
            "Check that this machine is online and that its DNS server can be reached.",
        ),
        "proxy_unreachable": FaultText(
            "proxy",
            "the proxy {hop} cannot be connected to: {detail}",
            f"Correct {_PROXY_SETTING}, or empty it if no proxy is needed here.",
        ),
        "proxy_silent": FaultText(
            "proxy",
            "the proxy {hop} has not answered within {detail}",
            f"Ask its operator, or name another in {_PROXY_SETTING}.",
        ),
        "proxy_wants_login": FaultText(
            "proxy",
            "the proxy {hop} wants a user and a password (status {detail})",
            f"Put them into the proxy's address in {_PROXY_SETTING}: http://USER:PASSWORD@HOST:PORT.",
        ),
        "proxy_refuses": FaultText(
            "proxy",
            "the proxy {hop} does not connect to {gateway} (status {detail})",
            "Ask its operator to allow that host and port, or add the host to NO_PROXY if it can be reached without.",
        ),
        "proxy_is_none": FaultText(
            "proxy", "what answers at {hop} is no HTTP proxy", f"Correct {_PROXY_SETTING}, or empty it."
        ),
        "tcp_refused": FaultText(
            "tcp",
            "nothing listens at {gateway}",
            "Start `segue serve` (or the proxy before it) there, or correct the host and port of --gateway.",
        ),
        "tcp_silent": FaultText(
            "tcp",
            "{gateway} has not answered within {detail}",
            "Check that the gateway runs and that no firewall, here or there, drops what is sent to its port.",
        ),
        "tcp_unreachable": FaultText(
            "tcp",
            "{gateway} cannot be reached: {detail}",
            "Check that this machine is online and has a way to that network (VPN, Wi-Fi).",
        ),
        "tls_none": FaultText(
            "tls",
            "what listens at {gateway} does not speak TLS",
            "Name the port of the TLS proxy before the gateway, or use ws:// if the network between is private.",
        ),
        "tls_untrusted": FaultText(
            "tls",
            "the certificate of {gateway} is not trusted: {detail}",
            "Name the authority that issued it with --cafile; if you expected a public one, something on the way "
            "(a company proxy, a captive portal) replaces it.",
        ),
        "tls_expired": FaultText(
            "tls",
            "the certificate of {gateway} has expired; the clock here says {detail}",
            "Renew the certificate, or set the clock if it is wrong.",
        ),
        "tls_not_yet_valid": FaultText(
            "tls",
            "the certificate of {gateway} is not valid yet; the clock here says {detail}",
            "Set the clock: it is probably behind.",
        ),
        "tls_wrong_name": FaultText(
            "tls",
            "the certificate at {gateway} is for another name: {detail}",
            "Name the gateway as its certificate does, or have a certificate issued for this name.",
        ),
        "tls_closed": FaultText(
            "tls",
            "{gateway} has closed the connection instead of answering in TLS",
            "Check that the port is the TLS port of the gateway, and that no firewall on the way forbids it.",
        ),
        "tls_silent": FaultText(
            "tls",
            "{gateway} has not finished the TLS handshake within {detail}",
            "Check that the port is the TLS port of the gateway; on a very slow link, raise connect_timeout_s.",
        ),
        "tls_failed": FaultText(
            "tls",
            "there is no TLS connection with {gateway}: {detail}",
            "Check the TLS settings of the proxy before the gateway: it needs TLS 1.2 or later.",
        ),
        "upgrade_silent": FaultText(
            "upgrade",
            "{gateway} accepts connections, and has not answered within {detail}",
            "Check that the port is the gateway's, and that the gateway is not stuck.",
        ),
        "upgrade_closed": FaultText(
            "upgrade",
            "{gateway} has broken the connection off: {detail}",
            "Check that the port is the gateway's (with TLS: wss://), that nothing between forbids WebSockets, and "
            "that --client-cert names a certificate that the gateway takes, if it asks for one.",
        ),
        "tls_wanted": FaultText(
            "upgrade",
            "{gateway} does not take plain HTTP ({detail})",
            "Write wss:// in place of ws://, or correct the port.",
        ),
        "login_page": FaultText("upgrade", "a login page of the network answers in the gateway's place{detail}", _PAGE),
        "redirected": FaultText(
            "upgrade",
            "what answers at {gateway} redirects to {detail}",
            "Name that address if it is your gateway's; if it is unknown to you, open a page in a browser and log in "
            "to this network.",
        ),
        "blocked_page": FaultText(
            "upgrade",
            "something that is no gateway refuses in its place ({detail})",
            "Ask whoever runs the proxy or firewall of this network to allow WebSockets to that host.",
        ),
        "gateway_away": FaultText(
            "upgrade",
            "a proxy answers at {gateway} and has no gateway behind it ({detail})",
            "Start `segue serve` behind that proxy, or correct the address that the proxy passes on to.",
        ),
        "upgrade_not_passed": FaultText(
            "upgrade",
            "the request has arrived without its upgrade ({detail})",
            "Let the proxy before the gateway pass on the lines Upgrade and Connection "
            "(docs/how-to/behind-a-proxy.md).",
        ),
        "other_server": FaultText(
            "upgrade",
            "another server answers at {gateway} ({detail})",
            "Correct host, port and path of --gateway: a gateway answers at /segue/tunnel below that address.",
        ),
        "gateway_busy": FaultText(
            "upgrade",
            "the gateway takes no sidecar at the moment: {detail}",
            "Try again in a minute, or name a second gateway.",
        ),
        "host_not_served": FaultText(
            "upgrade",
            "the gateway is not served under this name: {detail}",
            "Add the host to [server] hosts of the gateway.",
        ),
        "gateway_refuses": FaultText(
            "upgrade",
            "the gateway refuses: {detail}",
            "Do what its message says; its log may say more.",
        ),
        "key_missing": FaultText(
            "key",
            "the gateway wants a key, and none is set",
            "Put a key of the gateway (not of the provider) into SEGUE_SIDECAR_KEY, [sidecar] key or --key.",
        ),
        "key_unknown": FaultText(
            "key",
            "the gateway does not know this key",
            "Put a key that the gateway has as [[key]] into SEGUE_SIDECAR_KEY, [sidecar] key or --key; the one for the "
            "provider stays with the agent.",
        ),
        "version_differs": FaultText(
            "version",
            "the gateway speaks another version of the tunnel than this sidecar: {detail}",
            "Install the same version of segue here and there; if it is the same, let the proxy before the gateway "
            "pass on the lines Upgrade and Connection.",
        ),
        "no_messages": FaultText(
            "version",
            "the WebSocket opens, and no message comes through within {detail}",
            "Turn off buffering of WebSockets in the proxy before the gateway, or on the way.",
        ),
        "no_tunnel": FaultText(
            "version",
            "what answers does not speak the tunnel's protocol: {detail}",
            "Install the same version of segue here and there, and name the gateway itself.",
        ),
        "clock_behind": FaultText(
            "clock",
            "the clock here is {detail} behind that of {gateway}",
            "Set it, for example by turning network time on: certificates and keys are judged by it.",
        ),
        "clock_ahead": FaultText(
            "clock",
            "the clock here is {detail} ahead of that of {gateway}",
            "Set it, for example by turning network time on: certificates and keys are judged by it.",
        ),
    }
)
