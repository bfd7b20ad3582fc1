"""`DELETE /segue/tenants/{tenant}`: erases what a tenant has. A key may erase its own tenant, an operator's key any.

Not here: what is erased (`turns.erasure`).
"""

from __future__ import annotations

import math

from aiohttp import web

from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.audit import AuditLog
from segue.gateway.caller_rules import CallerRules
from segue.gateway.turns.erasure import Erasure
from segue.protocol.codec import encode
from segue.protocol.problems import Problem, Refused, quoted

_JSON = "application/json"


class TenantRoutes:
    """The handler of `/segue/tenants/{tenant}`."""

    def __init__(self, erasure: Erasure, rules: CallerRules, audit: AuditLog) -> None:
        self._erasure = erasure
        self._rules = rules
        self._audit = audit

    async def erase(self, request: web.Request) -> web.StreamResponse:
        """Erase what a tenant has, all or what is older than `before`, and answer with the receipt."""
        principal, tenant = request[PRINCIPAL], request.match_info["tenant"]
        if tenant != principal.tenant and not principal.operator:
            self._audit.note("erase", principal, peer=request.remote, status=403, reason=f"tenant {quoted(tenant)}")
            message = "A key may erase its own tenant only, unless its [[key]] table says operator = true."
            raise Refused(Problem("forbidden_peer", message))
        self._rules.check(principal)
        before, with_ids = _before(request), request.query.get("ids") == "true"
        status: int | None = None  # something failed, and a part may be erased
        reason = f"tenant {quoted(tenant)}"
        try:
            receipt = await self._erasure.erase(tenant, before, with_ids=with_ids)
            status, reason = 200, f"{reason}, responses {receipt.responses}, ids {receipt.ids_sha256}"
        finally:
            self._audit.note("erase", principal, peer=request.remote, status=status, reason=reason)
        return web.Response(body=encode(receipt), content_type=_JSON, headers={"Cache-Control": "no-store"})


def _before(request: web.Request) -> float | None:
    """Return the time that the query names, in unix seconds. A time that cannot be read must not mean all."""
    text = request.query.get("before")
    if text is None:
        return None
    try:
        before = float(text)
    except ValueError:
        before = math.nan
    if not math.isfinite(before):
        raise Refused(Problem("invalid_value", "Invalid value for 'before': a time in unix seconds.", "before"))
    return before
