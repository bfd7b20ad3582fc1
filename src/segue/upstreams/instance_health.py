"""What is known of the instances of all groups: their circuits, and until when they asked not to be asked. Pure.

A provider that says when it wants to be asked again (`Retry-After`) *rests* until then, for that model alone: limits of
a provider are those of a model. Nothing is sent to it meanwhile, not even if there is no other. Not here: what a
failure says about its instance (`failures`), and the order of instances (`placement`).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection

from segue.upstreams.circuit_breaker import (
    CLOSED,
    BreakerPolicy,
    Circuit,
    after_choice,
    after_failure,
    after_success,
)
from segue.upstreams.retries import FailedAttempt

#: For how many models of all instances a rest is remembered: the names of models come from clients.
MAX_RESTS = 1024
#: The longest rest: a provider that asks for more is asked once in this time.
LONGEST_REST_S = 3600.0


class InstanceHealth:
    """The circuits and rests of instances, by their names. Every `now` is of the same monotonic clock."""

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._circuits: dict[str, Circuit] = {}
        self._rests: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.opened: Counter[str] = Counter()
        """How often the circuit of an instance was opened."""
        self.left: Counter[str] = Counter()
        """How many turns went on at another instance because this one had failed."""

    def is_out(self, name: str, now: float) -> bool:
        """Say whether an instance gets no turns as long as another one can have them."""
        return self._circuits.get(name, CLOSED).state(now) == "open"

    def rest_s(self, name: str, model: str, now: float) -> float:
        """Return for how many seconds an instance is not to be asked for a model; 0 if it may be."""
        return max(0.0, self._rests.get((name, model), now) - now)

    def note_choice(self, name: str, now: float) -> None:
        """Note that a turn is sent to an instance."""
        circuit = self._circuits.get(name)
        if circuit is not None:
            self._circuits[name] = after_choice(circuit, self._policy, now)

    def note_output(self, name: str, begun_at: float) -> None:
        """Note that a turn has begun its output: an instance that was out is in use again."""
        circuit = self._circuits.get(name)
        if circuit is not None and circuit.opened_at is not None:
            self.note_success(name, begun_at)

    def note_success(self, name: str, begun_at: float) -> None:
        """Note that a turn has ended well."""
        circuit = self._circuits.get(name)
        if circuit is not None and after_success(circuit, begun_at) is CLOSED:
            del self._circuits[name]

    def note_failure(self, name: str, model: str, failed: FailedAttempt, *, begun_at: float, now: float) -> None:
        """Note that a turn has failed at an instance, for a reason that may lie with the instance."""
        if not failed.unhealthy:
            return
        wait_s = failed.problem.retry_after_s
        if wait_s is not None:
            self._rest(name, model, now + min(wait_s, LONGEST_REST_S))
            return
        before = self._circuits.get(name, CLOSED)
        after = self._circuits[name] = after_failure(before, self._policy, now, begun_at=begun_at)
        if after.openings > before.openings:
            self.opened[name] += 1

    def forget(self, names: Collection[str]) -> None:
        """Forget all but the counts of instances that are configured anew, or not any more."""
        for name in names:
            self._circuits.pop(name, None)
        for name, model in [one for one in self._rests if one[0] in names]:
            del self._rests[name, model]

    def _rest(self, name: str, model: str, until: float) -> None:
        self._rests[name, model] = max(until, self._rests.pop((name, model), until))
        if len(self._rests) > MAX_RESTS:
            self._rests.popitem(last=False)
