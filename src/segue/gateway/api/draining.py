"""Which requests a gateway that drains still takes. Not here: whether it drains, and what it waits for (`drain`).

What came through a tunnel may begin something all the same. The tunnel took it before it told its sidecar to go
elsewhere; from then on the tunnel itself refuses, in a way that lets the sidecar ask another gateway. A refusal by the
API would reach the agent.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from segue.gateway.drain import DrainState, takes_no_turn
from segue.gateway.tunnel.session import tunnel_principal
from segue.gateway.turns.caller import Caller
from segue.protocol.problems import Refused


def takes_no_more(drain: DrainState, request: web.Request) -> bool:
    """Tell whether a request may begin nothing."""
    return drain.draining and tunnel_principal(request) is None


def refuse_new(drain: DrainState, request: web.Request) -> None:
    """Refuse a request that would begin something; raises `Refused`."""
    if takes_no_more(drain, request):
        raise Refused(takes_no_turn())


def kept_turn_caller(caller: Caller, request: web.Request) -> Caller:
    """Return the caller of a kept turn, which begins some time after its request was let in."""
    return caller if tunnel_principal(request) is None else msgspec.structs.replace(caller, through_tunnel=True)
