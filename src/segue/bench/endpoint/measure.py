"""Measures somebody else's server: which ways it supports, what each saves there, and whether it keeps the history.

Every request has a deadline, and what a server sends is bounded. A transport whose first turn found no server is not
tried again. Conversations alternate over the rounds, and each figure of a turn is its median. Not here: what is asked
(`plan`, `checks`) and what the answers prove (`verdicts`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median
from typing import Any

import msgspec
from msgspec.structs import replace

from segue.bench.endpoint.checks import (
    CheckResult,
    check_chat,
    check_coding,
    check_lanes,
    check_messages,
    check_thread,
    continue_create,
    judge_continued,
    judge_unknown_id,
    not_tried,
    unknown_id_create,
)
from segue.bench.endpoint.conversation import EndpointRound, answer_of, converse
from segue.bench.endpoint.plan import (
    ENDPOINT_ARMS,
    Asked,
    CodeWords,
    EndpointArm,
    EndpointPlan,
    Json,
    code_words,
    make_create,
    said_by,
    user_text,
)
from segue.bench.endpoint.verdicts import (
    HistoryJudgement,
    RecallReference,
    Support,
    judge_all,
    judge_answer,
    support_of,
    told,
)
from segue.bench.meters.message_threads import ThreadTransport
from segue.bench.meters.responses_turns import HttpTurns, TurnReply, open_turns
from segue.bench.reports.report import Arm, BenchReport, RoundFigures, TurnFigures, arm, figure, make_report
from segue.client.errors import cut
from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings, TransportKind
from segue.client.transports.http import HttpTransport
from segue.client.transports.interface import TransportFault
from segue.protocol.codec import UNREADABLE

#: The checks that a server may pass which has no Responses API.
_OTHER_DOORS = frozenset({"Chat Completions", "Messages"})
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
#: A reply that does not count its tokens is taken for so many.
_BYTES_PER_TOKEN = 4


class EndpointError(RuntimeError):
    """The server cannot be measured; the message is for the user, in one line."""


class EndpointTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The server: its base URL as SDKs have it, ending before `/responses`; and how long one request may take."""

    base_url: str
    key: str | None = None
    deadline_s: float = 60.0
    budget_tokens: int | None = None
    """Stop before the next request when so many tokens are used."""


class ArmVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one way: whether the server has it, and whether the model saw the earlier turns."""

    name: str
    support: Support
    problem: str | None = None
    history: HistoryJudgement | None = None


class EndpointResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found."""

    report: BenchReport
    verdicts: tuple[ArmVerdict, ...]
    checks: tuple[CheckResult, ...]


class EndpointBench:
    """One run against one server."""

    def __init__(self, target: EndpointTarget, plan: EndpointPlan, on_step: Callable[[str], None]) -> None:
        self._target = target
        self._plan = plan
        self._on_step = on_step
        self._settings = _connection_of(target)
        self._http = HttpTransport(self._settings)
        self._server = self._http.server
        self._spent_tokens = 0
        self._rounds: dict[str, list[EndpointRound]] = {one.name: [] for one in ENDPOINT_ARMS}
        self._lacks_messages = False
        self._alone: TurnReply | None = None
        self._dead: dict[TransportKind, TurnFault] = {}

    async def run(self) -> EndpointResult:
        """Measure, judge, and make the report."""
        try:
            for _ in range(self._plan.rounds):
                for one in ENDPOINT_ARMS:
                    if self._goes_on(one):
                        self._on_step(one.name)
                        await self._converse(one)
            await self._ask_alone()
            checks = [await self._check(name, check) for name, check in self._checks().items()]
        finally:
            await self._http.aclose()
        return self._result(checks)

    # --- conversations -----------------------------------------------------------------------------------------------

    def _goes_on(self, one: EndpointArm) -> bool:
        """Whether the way is to be tried in this round: not after a fault of its own, nor with a dead transport."""
        held, dead = self._rounds[one.name], self._dead.get(one.transport)
        if dead is not None and (one.api == "responses" or support_of(dead) == "failed"):
            return False
        return not (held and held[-1].fault is not None)

    async def _converse(self, one: EndpointArm) -> None:
        words = code_words(os.urandom(8))
        talk = self._converse_http if one.transport == "http" else self._converse_socket
        held = await talk(one, words)
        self._rounds[one.name].append(held)
        if held.fault is not None and one.history == "replay" and not any(turn.answered for turn in held.turns):
            self._dead.setdefault(one.transport, held.fault)

    async def _converse_http(self, one: EndpointArm, words: CodeWords) -> EndpointRound:
        """Talk over connections of its own: the first turn opens the first one, as it does for an agent."""
        http = ThreadTransport(self._thread_settings) if one.api == "messages" else HttpTransport(self._settings)
        try:
            turns = HttpTurns(http, self._target.deadline_s)
            return await converse(turns, one, self._plan, words=words, may_spend=self._spend)
        finally:
            await http.aclose()

    @property
    def _thread_settings(self) -> ConnectionSettings:
        """What a client of the Messages API is told: it shows its key in a header of its own."""
        key = self._target.key
        return replace(self._settings, api_key=None, headers=() if key is None else (("x-api-key", key),))

    async def _converse_socket(self, one: EndpointArm, words: CodeWords) -> EndpointRound:
        begun_s, meter = time.perf_counter(), self._server.meter
        before = (meter.sent_bytes, meter.received_bytes)
        turns = await open_turns(self._server, self._target.deadline_s)
        if isinstance(turns, TurnFault):
            return EndpointRound(words=words, turns=(), answers=(), fault=turns)
        set_up_s = time.perf_counter() - begun_s
        set_up = (meter.sent_bytes - before[0], meter.received_bytes - before[1])
        try:
            held = await converse(turns, one, self._plan, words=words, may_spend=self._spend)
        finally:
            await turns.aclose()
        return replace(held, set_up_s=set_up_s, set_up_up_bytes=set_up[0], set_up_down_bytes=set_up[1])

    def _spend(self, reply: TurnReply) -> bool:
        """Count what a reply cost; say whether there is something left."""
        counted = (reply.input_tokens or 0) + (reply.output_tokens or 0)
        self._spent_tokens += counted or reply.bytes_up_payload // _BYTES_PER_TOKEN
        return self._affordable

    @property
    def _affordable(self) -> bool:
        budget = self._target.budget_tokens
        return budget is None or self._spent_tokens < budget

    def _http_turns(self) -> HttpTurns:
        return HttpTurns(self._http, self._target.deadline_s)

    # --- single questions --------------------------------------------------------------------------------------------

    async def _ask_alone(self) -> None:
        """Ask the last question without any history, over a transport that works."""
        held = next((rounds[0] for rounds in self._rounds.values() if rounds and rounds[0].fault is None), None)
        if held is None or not self._affordable:
            return
        question = said_by("user", user_text(self._plan.turns, held.words, self._plan))
        create = make_create(self._plan, [question], store=False)
        if "http" not in self._dead:
            self._alone = await self._http_turns().turn(create)
        else:
            reply = await self._over_socket(create)
            self._alone = None if isinstance(reply, TurnFault) else reply
        if self._alone is not None:
            self._spend(self._alone)

    async def _over_socket(self, create: Json) -> TurnReply | TurnFault:
        turns = await open_turns(self._server, self._target.deadline_s)
        if isinstance(turns, TurnFault):
            return turns
        try:
            return await turns.turn(create)
        finally:
            await turns.aclose()

    def _checks(self) -> Mapping[str, Callable[[str], Awaitable[CheckResult]]]:
        return {
            "unknown id over HTTP": lambda name: self._unknown_id(name, "http"),
            "unknown id over WebSocket": lambda name: self._unknown_id(name, "websocket"),
            "id after a reconnect, stored": lambda name: self._reconnect(name, "websocket id, stored", store=True),
            "id after a reconnect, not stored": lambda name: self._reconnect(
                name, "websocket id, not stored", store=False
            ),
            "named lanes": self._lanes,
            "gzip request body": lambda name: check_coding(name, self._server, self._plan, "gzip"),
            "zstd request body": lambda name: check_coding(name, self._server, self._plan, "zstd"),
            "Chat Completions": lambda name: check_chat(name, self._server, self._plan),
            "Messages": self._messages,
            "unknown message thread": lambda name: check_thread(name, self._server, self._plan, self._target.key),
        }

    async def _check(self, name: str, check: Callable[[str], Awaitable[CheckResult]]) -> CheckResult:
        transport: TransportKind = "websocket" if _needs_socket(name) else "http"
        dead = self._dead.get(transport)
        if dead is not None and (name not in _OTHER_DOORS or support_of(dead) == "failed"):
            return not_tried(name, told(dead))
        if not self._affordable:
            return not_tried(name, "the budget of tokens is used up")
        if name == "unknown message thread" and self._lacks_messages:
            return not_tried(name, "there is no Messages API")
        self._on_step(name)
        try:
            async with asyncio.timeout(self._target.deadline_s):
                return await check(name)
        except TimeoutError:
            return CheckResult(name=name, verdict="failed", detail="it did not answer in time")

    async def _unknown_id(self, name: str, transport: TransportKind) -> CheckResult:
        held = self._rounds[f"{transport} replay"][0]
        create = unknown_id_create(self._plan, held)
        reply = await (self._http_turns().turn(create) if transport == "http" else self._over_socket(create))
        if isinstance(reply, TurnFault):
            return not_tried(name, told(reply))
        self._spend(reply)
        return judge_unknown_id(name, reply)

    async def _reconnect(self, name: str, way: str, *, store: bool) -> CheckResult:
        held = next((one for one in self._rounds[way] if one.last_id is not None), None)
        if held is None:
            return not_tried(name, "no conversation of this kind came to its end")
        reply = await self._over_socket(continue_create(self._plan, held, store=store))
        if isinstance(reply, TurnFault):
            return not_tried(name, told(reply))
        self._spend(reply)
        return judge_continued(name, reply, held, self._reference("far"))

    async def _messages(self, name: str) -> CheckResult:
        found = await check_messages(name, self._server, self._plan, self._target.key)
        self._lacks_messages = found.verdict != "yes"
        return found

    async def _lanes(self, name: str) -> CheckResult:
        turns = await open_turns(self._server, self._target.deadline_s)
        if isinstance(turns, TurnFault):
            return not_tried(name, told(turns))
        try:
            return await check_lanes(name, turns, self._plan)
        finally:
            await turns.aclose()

    # --- the result --------------------------------------------------------------------------------------------------

    def _reference(self, asked: Asked) -> RecallReference:
        held = [one for name in ("http replay", "websocket replay") for one in self._rounds[name]]
        replayed = next((answer for one in held if (answer := one.answer(asked)) is not None), None)
        alone = self._alone
        if alone is None or not alone.answered:
            return RecallReference(replayed=replayed)
        return RecallReference(replayed=replayed, alone=answer_of(alone, asked="far", words=CodeWords("-", "-")))

    def _result(self, checks: Sequence[CheckResult]) -> EndpointResult:
        verdicts = tuple(self._verdict(one) for one in ENDPOINT_ARMS)
        arms = [self._arm(one, verdict) for one, verdict in zip(ENDPOINT_ARMS, verdicts, strict=True)]
        settings: dict[str, Any] = {
            "endpoint": self._target.base_url,
            **msgspec.to_builtins(self._plan),
            "tokens_used": self._spent_tokens,
            "verdicts": msgspec.to_builtins(verdicts),
            "checks": msgspec.to_builtins(checks),
        }
        figures = [
            figure(f"task time: {name}", task_s, "s")
            for name, rounds in self._rounds.items()
            if (task_s := [_task_s(one) for one in rounds if one.fault is None])
        ]
        return EndpointResult(report=make_report(arms, settings, figures), verdicts=verdicts, checks=tuple(checks))

    def _verdict(self, one: EndpointArm) -> ArmVerdict:
        held = self._rounds[one.name]
        if not held:
            why = self._dead.get(one.transport)
            return ArmVerdict(name=one.name, support="not tried", problem=None if why is None else told(why))
        fault = held[-1].fault
        support = support_of(fault) if len(held) == 1 or fault is None else "failed"
        judged = [judge_answer(answer, self._reference(answer.asked)) for round_ in held for answer in round_.answers]
        history = judge_all(judged) if one.history == "id" and judged else None
        return ArmVerdict(
            name=one.name, support=support, problem=None if fault is None else told(fault), history=history
        )

    def _arm(self, one: EndpointArm, verdict: ArmVerdict) -> Arm:
        held = self._rounds[one.name]
        whole = [round_ for round_ in held if round_.fault is None]
        turns = [_medians(same) for same in zip(*(round_.turns for round_ in whole), strict=True)]
        if verdict.support == "yes":
            return arm(one.name, turns, rounds=[_round_figures(round_) for round_ in whole])
        failed_turn = len(held[-1].turns) or 1 if held else None
        made = arm(one.name, turns, status="failed")
        return replace(made, failed_turn=failed_turn, problem=verdict.problem)


class _ListedModel(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_ListedModel]


async def list_models(target: EndpointTarget) -> list[str]:
    """Ask which models there are; empty if the server does not say. Raises `EndpointError` if it does not answer."""
    http = HttpTransport(_connection_of(target))
    server = http.server
    try:
        async with asyncio.timeout(target.deadline_s):
            response = await server.send("GET", server.base_url / "models", accept="application/json")
            data = await server.read(response, _MAX_MESSAGE_BYTES)
        return [cut(model.id) for model in msgspec.json.decode(data, type=_ModelList).data]
    except (TransportFault, TimeoutError) as error:
        fault = error.fault if isinstance(error, TransportFault) else None
        raise EndpointError("the server does not answer" if fault is None else told(fault)) from error
    except UNREADABLE:
        return []
    finally:
        await http.aclose()


async def measure_endpoint(
    target: EndpointTarget, plan: EndpointPlan, on_step: Callable[[str], None] = lambda _: None
) -> EndpointResult:
    """Measure a server; `on_step` is told what is asked next."""
    return await EndpointBench(target, plan, on_step).run()


def _connection_of(target: EndpointTarget) -> ConnectionSettings:
    return ConnectionSettings(
        base_url=target.base_url,
        api_key=target.key,
        deflate=False,
        connect_timeout_s=min(15.0, target.deadline_s),
        idle_timeout_s=target.deadline_s,
        max_message_bytes=_MAX_MESSAGE_BYTES,
    )


def _needs_socket(name: str) -> bool:
    return name in {"named lanes", "unknown id over WebSocket"} or name.startswith("id after")


def _task_s(held: EndpointRound) -> float:
    return (held.set_up_s or 0.0) + sum(turn.time_s for turn in held.turns)


def _round_figures(held: EndpointRound) -> RoundFigures:
    first_s = [turn.ttft_s for turn in held.turns if turn.ttft_s is not None]
    begun_s = held.turns[0].ttft_s
    return RoundFigures(
        task_s=_task_s(held),
        turns_s=sum(turn.time_s for turn in held.turns),
        ttft_first_s=None if begun_s is None else begun_s + (held.set_up_s or 0.0),
        ttft_median_s=median(first_s) if first_s else None,
        set_up_s=held.set_up_s,
        set_up_up_bytes=held.set_up_up_bytes,
        set_up_down_bytes=held.set_up_down_bytes,
        bytes_up_wire=held.set_up_up_bytes + sum(turn.bytes_up_wire for turn in held.turns),
        bytes_down_wire=held.set_up_down_bytes + sum(turn.bytes_down_wire for turn in held.turns),
    )


def _medians(turns: Sequence[TurnReply]) -> TurnFigures:
    first_s = [turn.ttft_s for turn in turns if turn.ttft_s is not None]
    tokens = [turn.input_tokens for turn in turns if turn.input_tokens is not None]
    return TurnFigures(
        bytes_up_payload=round(median(turn.bytes_up_payload for turn in turns)),
        bytes_up_wire=round(median(turn.bytes_up_wire for turn in turns)),
        bytes_down_wire=round(median(turn.bytes_down_wire for turn in turns)),
        ttft_s=median(first_s) if first_s else None,
        time_s=median(turn.time_s for turn in turns),
        tokens_processed=round(median(tokens)) if tokens else None,
    )
