"""A circuit breaker: whether an instance of a model server is in use, by what its turns have shown. Pure.

A circuit is *closed* while its instance works. After `failures` failed turns in a row it is *open*: the instance gets
no turns. When that time is over, one turn is let through as a trial. If the trial gets output, the circuit is closed;
if it fails, the circuit is open for twice as long as before. A trial that says nothing in time, or whose client goes
away, makes room for another one. Only a turn that began after the circuit was opened can change it: those that began
before say nothing new. Not here: which failures count (`failures`), and which instance a turn goes to (`placement`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["closed", "open", "trial"]


class BreakerPolicy(msgspec.Struct, frozen=True):
    """How many failures in a row open a circuit, for how long at first and at most, and what a trial may take."""

    failures: int = 3
    first_open_s: float = 2.0
    longest_open_s: float = 60.0
    trial_s: float = 30.0


class Circuit(msgspec.Struct, frozen=True):
    """The circuit of one instance. Times are of a monotonic clock.

    `failures` counts those in a row. `opened_at` is when it was opened, or when its trial began; None while it is
    closed. `open_until` is when the next trial may begin. `openings` counts how often it was opened in a row.
    """

    failures: int = 0
    opened_at: float | None = None
    open_until: float = 0.0
    openings: int = 0

    def state(self, now: float) -> State:
        """Say whether the instance may have turns, none, or one as a trial."""
        if self.opened_at is None:
            return "closed"
        return "trial" if now >= self.open_until else "open"


#: The circuit of an instance that nothing is known of.
CLOSED = Circuit()


def after_choice(circuit: Circuit, policy: BreakerPolicy, now: float) -> Circuit:
    """Return the circuit after a turn was sent to its instance: a trial keeps other turns away meanwhile."""
    if circuit.state(now) != "trial":
        return circuit
    return msgspec.structs.replace(circuit, opened_at=now, open_until=now + policy.trial_s)


def after_success(circuit: Circuit, begun_at: float) -> Circuit:
    """Return the circuit after a turn, which began at `begun_at`, has got output."""
    return circuit if _is_stale(circuit, begun_at) else CLOSED


def after_failure(circuit: Circuit, policy: BreakerPolicy, now: float, *, begun_at: float) -> Circuit:
    """Return the circuit after a turn, which began at `begun_at`, has failed."""
    if _is_stale(circuit, begun_at):
        return circuit
    failures = circuit.failures + 1
    if circuit.opened_at is None and failures < policy.failures:
        return Circuit(failures)
    open_s = min(policy.first_open_s * 2.0 ** min(circuit.openings, 30), policy.longest_open_s)
    return Circuit(failures, now, now + open_s, circuit.openings + 1)


def _is_stale(circuit: Circuit, begun_at: float) -> bool:
    return circuit.opened_at is not None and begun_at < circuit.opened_at
