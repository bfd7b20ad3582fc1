"""The ledger of the cluster tests finds what it is there for: turns that are lost, run twice, doubled or another's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.cluster.ledger import Ledger, LedgerTurn, Outcome


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
    ledger.forward(exchange.marker)
    ledger.forward(exchange.marker)


def forward_what_nobody_sent(ledger: Ledger) -> None:
    ledger.forward("ada/a/0")


FAULTS = (
    *(run_twice, never_said, lose_an_item, double_an_item, mix_tenants, show_to_another, show_what_was_deleted),
    *(store_twice, answer_with_another, complete_what_has_not_run, refuse_what_runs, run_what_was_refused),
    *(give_one_id_to_two, forward_twice, forward_what_nobody_sent),
)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: Callable[[Ledger], None]) -> None:
    ledger = Ledger()
    fault(ledger)
    assert ledger.faults


def test_a_turn_that_is_sent_again_may_run_then() -> None:
    ledger = Ledger()
    turn = ledger.begin("s", "ada")
    ledger.refuse(turn, "store_error")
    ledger.send_again(turn)
    ledger.receive([turn.marker])
    ledger.refuse(turn, "store_error")  # the first may have run, for all that the second attempt can say
    ledger.lose(turn)
    assert (turn.outcome, ledger.faults) == ("unknown", [])


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
