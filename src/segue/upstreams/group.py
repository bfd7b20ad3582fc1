"""A group: several upstreams that run the same models, of which each turn is run by one.

A turn goes to the instance that has its conversation (`placement`). If that one fails before the first event of the
output, and its failure proves that nothing was generated, the next one gets the turn at once. After the first event,
and where the outcome is not known, nobody else gets it: it may have been paid for. (Of a server that costs nothing, the
configuration may say that a turn of unknown outcome can be run again.) The failures and successes of turns
are the only health checks (`instance_health`). Not here: which upstreams are in a group (`router`), and what a failure
proves (`failures`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec
from msgspec.structs import replace

from segue.protocol.events import Ended
from segue.protocol.problems import Problem, Refused, not_counted
from segue.protocol.responses import Usage, usage
from segue.upstreams.conversation_key import conversation_key_of
from segue.upstreams.failures import speaks_against_server
from segue.upstreams.instance_health import InstanceHealth
from segue.upstreams.interface import (
    Batch,
    Counting,
    Limited,
    Prefilling,
    Upstream,
    UpstreamFailed,
    UpstreamRequest,
)
from segue.upstreams.placement import Instance, MovedConversations, digest_of, home, rank
from segue.upstreams.retries import FailedAttempt

_log = logging.getLogger("segue.upstreams")


class Member(msgspec.Struct, frozen=True):
    """An upstream of a group; `model_as` is its own name for every model."""

    name: str
    upstream: Upstream
    model_as: str | None = None
    weight: int = 1
    backup: bool = False


class GroupState(msgspec.Struct, frozen=True):
    """What the groups of a gateway share, and keep when the configuration is read again; `clock` is monotonic."""

    clock: Callable[[], float]
    health: InstanceHealth = msgspec.field(default_factory=InstanceHealth)
    moved: MovedConversations = msgspec.field(default_factory=MovedConversations)


class _Placed(msgspec.Struct, frozen=True):
    """Where a turn may go: its members in order, of which the first are in use; its conversation; and its home."""

    members: Sequence[Member]
    in_use: int
    conversation: bytes
    home: str

    def has_standby(self, number: int) -> bool:
        """Say whether a turn that fails at the member of this number, from 1, goes on at the next one at once.

        The last one in use makes its own further attempts first: those behind it are known to fail.
        """
        return number != self.in_use and number < len(self.members)


class UpstreamGroup:
    """The members of the group `name` that may run a turn."""

    def __init__(self, name: str, members: Sequence[Member], state: GroupState) -> None:
        self.name = name
        self.members = tuple(members)
        self._state = state

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn at the first member that can."""
        placed, clock = self._place(request), self._state.clock
        for number, member in enumerate(placed.members, 1):
            asked = _ask(member, request, standby=placed.has_standby(number))
            begun_at, begun, batches = clock(), False, member.upstream.stream(asked)
            self._state.health.note_choice(member.name, begun_at)
            request.notes.tried.append(member.name)
            try:
                async for batch in batches:
                    if batch and not begun:
                        begun = True
                        self._note_output(placed, member, batch, begun_at)
                    if batch and isinstance(batch[-1], Ended):
                        self._note_end(member, asked.model, batch[-1], begun_at)
                    yield batch
                return
            except Refused as error:
                others = number < len(placed.members) and not begun
                if not self._is_for_another(error, member, asked, begun_at=begun_at, others=others):
                    raise
            finally:
                await batches.aclose()

    async def count_input(self, request: UpstreamRequest) -> int:
        """Ask the first member that can count."""
        for member in self._place(request).members:
            begun_at, asked = self._state.clock(), _ask(member, request, standby=False)
            if not isinstance(member.upstream, Counting):
                continue
            try:
                return await member.upstream.count_input(asked)
            except Refused as error:
                if not self._is_for_another(error, member, asked, begun_at=begun_at, others=True):
                    raise
        raise Refused(not_counted(request.model))

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Process a prompt at the member that will get the turns that continue it, if that one can."""
        placed = self._place(request)
        member = placed.members[0]
        if not isinstance(member.upstream, Prefilling):
            return usage(0, 0)
        return await member.upstream.prefill(_ask(member, request, standby=False))

    def _place(self, request: UpstreamRequest) -> _Placed:
        """Return where a turn may go. Raises `Refused` if every member has asked not to be asked now."""
        now, state = self._state.clock(), self._state
        key = conversation_key_of(request)
        conversation, by_name = digest_of(key), {one.name: one for one in self.members}
        instances = [_instance(one, out=state.health.is_out(one.name, now)) for one in self.members]
        held_by = state.moved.find(self.name, conversation)
        ranked = rank(instances, conversation, held_by=held_by, new=request.history.parent is None and not key.replayed)
        rests = {one.name: state.health.rest_s(one.name, _model(by_name[one.name], request), now) for one in ranked}
        left = [one for one in ranked if not rests[one.name]]
        if not left:
            raise Refused(_all_rest(self.name, min(rests.values())))
        members, in_use = [by_name[one.name] for one in left], sum(not one.out for one in left)
        return _Placed(members, in_use, conversation, home(instances, conversation))

    def _note_output(self, placed: _Placed, member: Member, batch: Batch, begun_at: float) -> None:
        """Note where a conversation is, once a member has begun its answer."""
        state = self._state
        if isinstance(batch[0], Ended) and batch[0].status == "failed":
            return
        state.health.note_output(member.name, begun_at)
        first = placed.members[0].name
        if member.name == first or state.health.is_out(first, state.clock()):  # else it was one failure; it goes back
            state.moved.note(self.name, placed.conversation, member.name, at_home=member.name == placed.home)

    def _note_end(self, member: Member, model: str, ended: Ended, begun_at: float) -> None:
        health = self._state.health
        if ended.status != "failed":
            health.note_success(member.name, begun_at)
        elif ended.error is not None and speaks_against_server(ended.error.code, clients_key=True):
            problem = Problem("upstream_error", "", retry_after_s=ended.retry_after_s)
            failed = FailedAttempt(problem, unhealthy=True)
            health.note_failure(member.name, model, failed, begun_at=begun_at, now=self._state.clock())

    def _is_for_another(
        self, error: Refused, member: Member, asked: UpstreamRequest, *, begun_at: float, others: bool
    ) -> bool:
        """Note a failure; say whether another member, if there are `others`, is to have the turn."""
        health, failed = self._state.health, _evidence(error)
        health.note_failure(member.name, asked.model, failed, begun_at=begun_at, now=self._state.clock())
        if not (others and failed.elsewhere):
            return False
        health.left[member.name] += 1
        _log.warning(
            "action=failover group=%s upstream=%s response_id=%s code=%s",
            *(self.name, member.name, asked.response_id, failed.problem.code),
        )
        return True


def _ask(member: Member, request: UpstreamRequest, *, standby: bool) -> UpstreamRequest:
    return replace(request, model=_model(member, request), standby=standby)


def _model(member: Member, request: UpstreamRequest) -> str:
    return member.model_as or request.model


def _instance(member: Member, *, out: bool) -> Instance:
    full = isinstance(member.upstream, Limited) and not member.upstream.has_place()
    return Instance(member.name, member.weight, member.backup, out, full)


def _evidence(error: Refused) -> FailedAttempt:
    """Return what a refusal proves. One by the gateway's own queue says nothing about the instance."""
    if isinstance(error, UpstreamFailed):
        return error.failed
    return FailedAttempt(error.problem, elsewhere=error.problem.code == "server_overloaded")


def _all_rest(group: str, wait_s: float) -> Problem:
    message = f"Every upstream of the group {group!r} has asked to be left alone for now. Try again later."
    return Problem("server_overloaded", message, retry_after_s=wait_s)
