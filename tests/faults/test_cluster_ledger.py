"""The ledger of the cluster tests finds what it is there for: turns that are lost, run twice, doubled or another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from segue.testing.provider import Answer, ReceivedRequest, provided
from tests.faults.cluster.findings import find, told
from tests.faults.cluster.ledger import Ledger, LedgerTurn, Outcome
from tests.faults.cluster.running_turns import RunningTurns
from tests.faults.gateways import until


def acknowledged(ledger: Ledger, parent: LedgerTurn | None = None, ident: str = "resp_1") -> LedgerTurn:
    """A turn that went well."""
    turn = ledger.begin("s", "ada", parent)
    ledger.receive([*(parent.after if parent else ()), turn.marker])
    ledger.acknowledge(turn, ident, turn.answer)
    return turn


def test_a_chain_that_goes_well_has_no_fault() -> None:
    ledger = Ledger()
    first = acknowledged(ledger)
    second = acknowledged(ledger, first, "resp_2")
    ledger.list_response("ada", "resp_1", [first.marker])
    ledger.list_response("ada", "resp_2", [*first.after, second.marker])
    assert ledger.missing({"resp_1", "resp_2"}) == []
    assert ledger.missing({"resp_1"}) == [second]
    assert ledger.faults == []


def run_twice(ledger: Ledger) -> None:
    turn = acknowledged(ledger)
    ledger.receive([turn.marker])


def never_said(ledger: Ledger) -> None:
    ledger.receive(["ada/s/17"])


def lose_an_item(ledger: Ledger) -> None:
    first = acknowledged(ledger)
    second = ledger.begin("s", "ada", first)
    ledger.receive([first.marker, second.marker])


def double_an_item(ledger: Ledger) -> None:
    first = acknowledged(ledger)
    second = ledger.begin("s", "ada", first)
    ledger.receive([*first.after, first.answer, second.marker])


def mix_tenants(ledger: Ledger) -> None:
    first = acknowledged(ledger)
    second = ledger.begin("s", "bob")
    ledger.receive([*first.after, second.marker])


def show_to_another(ledger: Ledger) -> None:
    first = acknowledged(ledger)
    ledger.list_response("bob", "resp_1", [first.marker])


def show_what_was_deleted(ledger: Ledger) -> None:
    first = acknowledged(ledger)
    first.presence = "deleted"
    ledger.list_response("ada", "resp_1", [first.marker])


def store_twice(ledger: Ledger) -> None:
    first = acknowledged(ledger)
    ledger.list_response("ada", "resp_2", [first.marker])


def answer_with_another(ledger: Ledger) -> None:
    turn = ledger.begin("s", "ada")
    ledger.receive([turn.marker])
    ledger.acknowledge(turn, "resp_1", "re something else")


def complete_what_has_not_run(ledger: Ledger) -> None:
    turn = ledger.begin("s", "ada")
    ledger.acknowledge(turn, "resp_1", turn.answer)


def refuse_what_runs(ledger: Ledger) -> None:
    turn = ledger.begin("s", "ada")
    ledger.receive([turn.marker])
    ledger.refuse(turn, "store_error")


def run_what_was_refused(ledger: Ledger) -> None:
    turn = ledger.begin("s", "ada")
    ledger.refuse(turn, "store_error")
    ledger.receive([turn.marker])


def give_one_id_to_two(ledger: Ledger) -> None:
    acknowledged(ledger)
    acknowledged(ledger)


def forward_twice(ledger: Ledger) -> None:
    exchange = ledger.begin_exchange("a", "ada")
    attempt = ledger.try_exchange(exchange)
    ledger.forward(exchange.marker, attempt)
    ledger.forward(exchange.marker, attempt)


def forward_what_nobody_sent(ledger: Ledger) -> None:
    ledger.forward("ada/a/0", 0)


def forward_what_nobody_repeated(ledger: Ledger) -> None:
    exchange = ledger.begin_exchange("a", "ada")
    ledger.forward(exchange.marker, ledger.try_exchange(exchange) + 1)


def forward_what_was_refused(ledger: Ledger) -> None:
    exchange = ledger.begin_exchange("a", "ada")
    attempt = ledger.try_exchange(exchange)
    ledger.refuse_attempt(exchange, attempt, "503")
    ledger.forward(exchange.marker, attempt)


def refuse_what_was_forwarded(ledger: Ledger) -> None:
    exchange = ledger.begin_exchange("a", "ada")
    attempt = ledger.try_exchange(exchange)
    ledger.forward(exchange.marker, attempt)
    ledger.refuse_attempt(exchange, attempt, "503")


def answer_what_was_not_forwarded(ledger: Ledger) -> None:
    exchange = ledger.begin_exchange("a", "ada")
    ledger.answer_attempt(exchange, ledger.try_exchange(exchange))


def run_too_many_at_once(ledger: Ledger) -> None:
    ledger.count_running([0, 0], most=1)


FAULTS = (
    *(run_twice, never_said, lose_an_item, double_an_item, mix_tenants, show_to_another, show_what_was_deleted),
    *(store_twice, answer_with_another, complete_what_has_not_run, refuse_what_runs, run_what_was_refused),
    *(give_one_id_to_two, forward_twice, forward_what_nobody_sent, forward_what_nobody_repeated),
    *(forward_what_was_refused, refuse_what_was_forwarded, answer_what_was_not_forwarded, run_too_many_at_once),
)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: Callable[[Ledger], None]) -> None:
    ledger = Ledger()
    fault(ledger)
    assert ledger.faults


def test_a_request_that_its_agent_repeats_may_be_forwarded_again() -> None:
    ledger = Ledger()
    exchange = ledger.begin_exchange("a", "ada")
    lost, refused, answered = (ledger.try_exchange(exchange) for _ in range(3))
    ledger.forward(exchange.marker, lost)
    ledger.refuse_attempt(exchange, refused, "503")
    ledger.forward(exchange.marker, answered)
    ledger.answer_attempt(exchange, answered)
    assert (exchange.forwarded, exchange.outcome, ledger.faults) == ({lost, answered}, "answered", [])


def test_more_than_the_limit_may_run_while_its_places_are_lost() -> None:
    losses: list[int | None] = [None]
    ledger = Ledger(lambda: losses[0])
    ledger.count_running([0, 0], most=1)
    losses[0] = 2
    ledger.count_running([0, None, 1], most=1)
    assert (ledger.counted, ledger.faults) == (0, [])
    ledger.count_running([0, 2], most=1)
    assert (ledger.counted, ledger.faults) == (1, [])
    ledger.count_running([0, 2, 2], most=1)
    assert ledger.faults == ["2 turns run at once, and no more than 1 may"]


def test_what_is_sent_is_of_its_time() -> None:
    losses: list[int | None] = [0]
    ledger = Ledger(lambda: losses[0])
    turn, exchange = ledger.begin("s", "ada"), ledger.begin_exchange("a", "ada")
    ledger.try_exchange(exchange)
    losses[0] = None
    ledger.send_again(turn)
    ledger.try_exchange(exchange)
    assert (turn.sent_in, exchange.sent_in, exchange.attempts) == (0, [0, None], 2)


def test_a_turn_that_is_sent_again_may_run_then() -> None:
    ledger = Ledger()
    turn = ledger.begin("s", "ada")
    ledger.refuse(turn, "store_error")
    ledger.send_again(turn)
    ledger.receive([turn.marker])
    ledger.refuse(turn, "store_error")  # the first may have run, for all that the second attempt can say
    ledger.lose(turn)
    assert (turn.outcome, ledger.faults) == ("unknown", [])


@pytest.mark.parametrize("first_ends", ["hung up", "spoken", "runs"])
async def test_what_was_over_when_a_turn_came_does_not_run_beside_it(first_ends: str, plain_loop: None) -> None:
    """However late the provider learns of it: both are there when it looks."""
    ledger, gates = Ledger(), [asyncio.Event(), asyncio.Event()]

    def answer(request: ReceivedRequest) -> Answer:
        running.begin(request.number, 0)
        return Answer(pieces=(b"one", b"two"), gates={1: gates[request.number], 2: asyncio.Event()})

    async with provided(answer) as provider:
        running = RunningTurns(provider, ledger, most=1)
        (first, first_writer), (second, second_writer) = [
            await asyncio.open_connection(provider.host, provider.port) for _ in range(2)
        ]
        first_writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await first.readuntil(b"one")
        match first_ends:
            case "hung up":
                first_writer.transport.abort()
            case "spoken":
                gates[0].set()
                await first.readuntil(b"two")
            case _:
                pass
        await asyncio.sleep(0)  # asyncio closes what is aborted in the next round
        second_writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await second.readuntil(b"one")
        await until(lambda: ledger.counted == 2)
        assert bool(ledger.faults) is (first_ends == "runs")
        for writer in (first_writer, second_writer):
            writer.transport.abort()


@pytest.mark.parametrize(
    ("shown", "allowed"),
    [
        ("01", True),
        ("012", True),
        ("0", False),
        ("10", False),
        ("0011", False),
        ("013", False),
    ],
)
def test_a_conversation_has_what_was_acknowledged_and_perhaps_what_is_unknown(shown: str, allowed: bool) -> None:
    ledger = Ledger()
    talk = ledger.begin_conversation("ada", "conv_1")
    turns = [ledger.begin("s", "ada", talk=talk) for _ in range(4)]
    outcomes: tuple[Outcome, ...] = ("acknowledged", "acknowledged", "unknown", "refused")
    for turn, outcome in zip(turns, outcomes, strict=True):
        turn.outcome = outcome
    texts = [text for number in shown for text in (turns[int(number)].marker, turns[int(number)].answer)]
    assert talk.allows(texts) is allowed


def test_what_was_seen_is_said_of_each_test_and_of_all() -> None:
    ledger = Ledger()
    acknowledged(ledger)
    exchange = ledger.begin_exchange("a", "ada")
    ledger.forward(exchange.marker, ledger.try_exchange(exchange))
    found = find(ledger, {"kill": 2})
    seen = (
        "turns acknowledged {0}, exchanges open {0}, of the unknown forwarded 0, attempts of exchanges {0}, "
        "attempts forwarded {0}"
    )
    assert list(told({"one": found})) == [f"one: {seen.format(1)}, limit compared 0; faults: kill 2"]
    assert list(told({"one": found, "two": found}))[2] == f"all 2: {seen.format(2)}, limit compared 0; faults: kill 4"
