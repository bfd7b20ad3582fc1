"""What holds for a caller at this moment: whether its key is valid, and what it may still use.

Not here: how a caller is found (`access`), and how its use is counted (`quotas`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from segue.gateway.access import Access
from segue.gateway.principal import Principal
from segue.gateway.quotas.concurrency import ConcurrencyLimiter
from segue.gateway.quotas.quotas import Quotas
from segue.protocol.problems import Problem, Refused


class CallerRules(msgspec.Struct, frozen=True):
    """The rules of one gateway; `clock` gives unix seconds."""

    access: Access
    limiter: ConcurrencyLimiter
    clock: Callable[[], float]

    @property
    def quotas(self) -> Quotas:
        """What is counted, and the limits of this gateway."""
        return self.limiter.quotas

    def renewed(self, principal: Principal) -> Principal:
        """Return what is true of a connection's principal by now.

        Raises:
            Refused: its key is not valid any more.
        """
        found = self.access.renewed(principal, self.clock())
        if isinstance(found, Problem):
            raise Refused(found)
        return found

    def check(self, principal: Principal) -> None:
        """Refuse a principal that is over a limit, before its request is read.

        Raises:
            Refused: it is.
        """
        self.quotas.check(principal, self.clock())

    def take_request(self, principal: Principal) -> None:
        """Count a request that runs no turn.

        Raises:
            Refused: the principal is over a limit.
        """
        self.quotas.take_request(principal, self.clock())

    def note_upload(self, principal: Principal, size: int) -> None:
        """Count the bytes of a request."""
        self.quotas.note_upload(principal, size, self.clock())
