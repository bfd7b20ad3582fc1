"""Who asks for a turn."""

from __future__ import annotations

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.principal import Principal
from segue.gateway.turns.caller import Caller


def test_a_turn_belongs_to_the_tenant_of_its_principal() -> None:
    caller = Caller(Principal("a", "k"), TransportMeter("sse"))
    assert (caller.tenant, caller.api, caller.meter.transport) == ("a", "responses", "sse")
