"""The recovery decision never pays twice, whatever meets a turn; every combination of facts is walked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from segue.client.recovery import (
    CONDITIONS,
    DELIVERING,
    FIRST_WAIT_S,
    LONGEST_TOLD_WAIT_S,
    LONGEST_WAIT_S,
    MOST_WEBSOCKET_FAILURES,
    RULES,
    UNANSWERED,
    Decision,
    FaultKind,
    Progress,
    RecoveryState,
    ServerLife,
    TurnFault,
    backoff_s,
    decide,
    is_websocket_failure,
)
from segue.client.settings import TransportKind

BOTH = (False, True)

#: What servers say, by kind of fault: status, code, param, Retry-After, and whether that proves that nothing ran.
REFUSALS = (
    (TurnFault(kind="refused", transport="http", status=400, code="previous_response_not_found"), True),
    (TurnFault(kind="refused", transport="http", code="previous_response_not_found"), True),
    (TurnFault(kind="refused", transport="http", status=400, code="websocket_connection_limit_reached"), True),
    (TurnFault(kind="refused", transport="http", status=400, param="include"), True),
    (TurnFault(kind="refused", transport="http", status=400, code="invalid_value"), True),
    (TurnFault(kind="refused", transport="http", status=400, code="segue_outcome_unknown", param="include"), False),
    (TurnFault(kind="refused", transport="http", status=429, code="upstream_closed"), False),
    (TurnFault(kind="refused", transport="http", status=404), True),
    (TurnFault(kind="refused", transport="http", status=429, retry_after_s=2.0), True),
    (TurnFault(kind="refused", transport="http", status=503, retry_after_s=2.0), True),
    (TurnFault(kind="refused", transport="http", status=503), False),
    (TurnFault(kind="refused", transport="http", status=408), False),
    (TurnFault(kind="refused", transport="http", status=500), False),
    (TurnFault(kind="refused", transport="http", status=501), True),
    (TurnFault(kind="refused", transport="http"), False),
)
UPGRADES = tuple(TurnFault(kind="upgrade_refused", transport="http", status=status) for status in (426, 401, 429, 502))


def faults(kind: FaultKind, transport: TransportKind) -> list[tuple[TurnFault, bool]]:
    """The faults of a kind, and whether each proves that its own create ran nothing."""
    if kind == "refused":
        return [(msgspec.structs.replace(fault, transport=transport), proof) for fault, proof in REFUSALS]
    if kind == "upgrade_refused":
        return [(msgspec.structs.replace(fault, transport=transport), False) for fault in UPGRADES]
    plain = TurnFault(kind=kind, transport=transport)
    limit = TurnFault(kind=kind, transport=transport, code="websocket_connection_limit_reached")
    return [(plain, False), (limit, False)] if kind == "failed" else [(plain, False)]


def is_possible(state: RecoveryState, kind: FaultKind) -> bool:
    """Whether a fault of this kind can meet this state. What no rule for the kind looks at is not varied."""
    started = state.progress in {"started", "output"}
    if kind == "refused":
        varied = state.progress == "not_sent" or state.retrievable or state.mode != "auto" or state.websocket_failures
        return not varied
    if kind == "failed" and not started:
        return False
    unsent = state.progress == "not_sent" and (state.repeated or state.server != "unknown")
    return not (unsent or state.by_id or state.replayed or (state.retrievable and not started))


def states() -> Iterator[RecoveryState]:
    pairs = product(get_args(Progress), get_args(ServerLife), *[BOTH] * 10)
    for (
        how_far,
        server,
        free,
        only_ids,
        repeated,
        by_id,
        replayed,
        keyed,
        resumable,
        retrievable,
        last,
        broken,
    ) in pairs:
        yield RecoveryState(
            progress=how_far,
            server=server,
            mode="auto" if free else "websocket",
            history="id" if only_ids else "auto",
            repeated=repeated,
            by_id=by_id,
            replayed=replayed,
            keyed=keyed,
            resumable=resumable,
            retrievable=retrievable,
            own_field=by_id,
            attempts=8 if last else 1,
            websocket_failures=MOST_WEBSOCKET_FAILURES if broken else 0,
        )


class Case(NamedTuple):
    """One combination of facts, and what is decided. `proof`: the fault proves that its own create ran nothing."""

    fault: TurnFault
    proof: bool
    state: RecoveryState
    made: Decision


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    everything = list(states())
    found: list[Case] = []
    for kind, transport in product(get_args(FaultKind), get_args(TransportKind)):
        possible = [state for state in everything if is_possible(state, kind)]
        for fault, proof in faults(kind, transport):
            found += [Case(fault, proof, state, decide(fault, state)) for state in possible]
    return found


def judge(case: Case) -> str | None:
    """Return what is wrong with the decision for one combination of facts; None if nothing is."""
    fault, proof, state, made = case
    unsent = state.progress == "not_sent"
    refused = proof and not state.repeated
    guarded = state.keyed and state.server == "same"
    broken = {
        "a create is delivered a second time, and nothing makes that safe": made.action in DELIVERING
        and not (unsent or refused or guarded),
        "a repeat without a key": made.action == "repeat" and not guarded,
        "a replay that is forbidden, or a second one": made.action == "replay"
        and (state.history == "id" or state.replayed),
        "a resume that its server cannot serve": made.action == "resume"
        and not (state.resumable and state.server == "same"),
        "a retrieval of what is not stored": made.action == "retrieve" and not state.retrievable,
        "a change of the transport that was not allowed, or none": made.action == "use_http"
        and (state.mode == "websocket" or fault.transport == "http"),
        "something may have been delivered, and the error says that nothing was": made.error == "connection_failed"
        and not unsent,
        "something may have run, and the error says that nothing did": made.error
        in {"create_refused", "continuation_lost"}
        and not (refused or unsent),
        "an error where nothing is given up, or none where it is": (made.error is None) == (made.action == "give_up"),
    }
    return next((rule for rule, is_broken in broken.items() if is_broken), None)


@pytest.mark.untraced
def test_no_combination_of_facts_pays_twice(cases: list[Case]) -> None:
    wrong = [(judge(case), case) for case in cases if judge(case) is not None]
    assert wrong[:1] == []


def test_attempts_end(cases: list[Case]) -> None:
    """With no attempt left only steps that are taken once a turn are left, or the end."""
    last = {case.made.action for case in cases if case.state.attempts == case.state.most_attempts}
    assert last == {"use_http", "replay", "leave_out", "give_up"}


def test_every_rule_is_reached(cases: list[Case]) -> None:
    """A rule that another one hides would be shown in the table and never used."""
    reached = {(case.made.action, case.made.why) for case in cases}
    assert {(rule.action, rule.why) for rule in RULES} - reached == set()


def test_every_condition_is_used_and_known() -> None:
    assert {name for rule in RULES for name in rule.when} == set(CONDITIONS)


# --- single decisions ------------------------------------------------------------------------------------------------


def sent(**facts: Any) -> RecoveryState:  # noqa: ANN401 - any of its facts
    return RecoveryState(progress="sent", **facts)


def unsent(**facts: Any) -> RecoveryState:  # noqa: ANN401 - any of its facts
    return RecoveryState(progress="not_sent", **facts)


def refused(status: int | None = 400, **facts: Any) -> TurnFault:  # noqa: ANN401 - any of its facts
    return TurnFault(kind="refused", transport="websocket", status=status, **facts)


def upgrade(status: int, **facts: Any) -> TurnFault:  # noqa: ANN401 - any of its facts
    return TurnFault(kind="upgrade_refused", transport="websocket", status=status, **facts)


LOST = TurnFault(kind="connection_lost", transport="websocket")


@pytest.mark.parametrize("status", [426, 404, 405, 501, 200, 302])
def test_a_server_without_websockets_is_spoken_to_over_http(status: int) -> None:
    assert decide(upgrade(status), unsent()).action == "use_http"
    told = decide(upgrade(status), unsent(mode="websocket"))
    assert (told.action, told.error) == ("give_up", "create_refused")


def test_a_web_page_in_place_of_an_upgrade_says_that_there_is_none_unless_it_is_an_error_of_a_proxy() -> None:
    assert decide(upgrade(403, body_kind="html"), unsent()).action == "use_http"
    assert decide(upgrade(502, body_kind="html"), unsent()).action == "send"


def test_a_wrong_key_is_not_tried_again() -> None:
    assert decide(upgrade(401), unsent()).error == "create_refused"
    assert decide(refused(401), sent()).error == "create_refused"


def test_websockets_that_do_not_last_give_way_to_http() -> None:
    few, many = (unsent(websocket_failures=count) for count in (2, MOST_WEBSOCKET_FAILURES))
    assert decide(upgrade(502), few).action == "send"
    assert decide(upgrade(502), many).action == "use_http"
    assert decide(LOST, sent(websocket_failures=3)).error == "outcome_unknown"
    assert decide(LOST, sent(websocket_failures=3, keyed=True)).action == "use_http"


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        (LOST, True),
        (upgrade(502), True),
        (upgrade(426), False),
        (upgrade(501), False),
        (upgrade(401), False),
        (TurnFault(kind="timeout", transport="websocket"), True),
        (TurnFault(kind="connect_failed", transport="websocket"), False),
        (TurnFault(kind="connection_lost", transport="http"), False),
        (refused(), False),
    ],
)
def test_only_what_speaks_against_websockets_counts_against_them(fault: TurnFault, counts: bool) -> None:
    assert is_websocket_failure(fault) is counts


@pytest.mark.parametrize(
    "fault",
    [
        refused(code="previous_response_not_found"),
        refused(None, code="previous_response_not_found"),
        refused(400, param="previous_response_id"),
        refused(400, code="store_mismatch"),
        refused(404),
    ],
)
def test_a_parent_that_is_gone_is_replaced_by_the_history_once(fault: TurnFault) -> None:
    assert decide(fault, sent(by_id=True)).action == "replay"
    assert decide(fault, sent(by_id=True, history="id")).error == "continuation_lost"
    assert decide(fault, sent(by_id=True, replayed=True)).error == "create_refused"


def test_a_model_that_does_not_exist_is_no_lost_parent() -> None:
    for fault in (refused(404, code="model_not_found"), refused(404, param="model")):
        assert decide(fault, sent(by_id=True)).error == "create_refused"


def test_a_change_of_the_network_ends_waits_for_servers_that_were_not_heard_and_no_other_wait() -> None:
    lost = TurnFault(kind="connect_failed", transport="http", delivered="no")
    assert decide(lost, RecoveryState(progress="not_sent")).for_network
    ended = refused(400, code="websocket_connection_limit_reached")
    assert not decide(ended, sent()).for_network
    assert not decide(refused(429, retry_after_s=2.0), sent()).for_network


def test_a_server_that_names_a_time_is_waited_for_within_reason() -> None:
    soon, late = refused(429, retry_after_s=2.0), refused(429, retry_after_s=LONGEST_TOLD_WAIT_S + 1)
    assert decide(soon, sent()) == Decision(action="send", wait_s=2.0, why="The server said when to come.")
    assert decide(late, sent()).error == "create_refused"
    assert decide(soon, sent(remaining_s=1.0)).error == "create_refused"
    assert decide(refused(429), sent(fraction=0.5)).wait_s == FIRST_WAIT_S / 2
    assert decide(refused(429, code="insufficient_quota", retry_after_s=2.0), sent()).error == "create_refused"
    assert decide(refused(503), sent()).error == "outcome_unknown"


@pytest.mark.parametrize(
    ("code", "decided"),
    [
        ("invalid_request_error", ("give_up", "create_refused")),
        ("rate_limit_exceeded", ("send", None)),
        ("insufficient_quota", ("give_up", "create_refused")),
        ("server_error", ("give_up", "outcome_unknown")),
        (None, ("give_up", "outcome_unknown")),
    ],
)
def test_an_error_event_without_a_status_is_judged_by_its_code(
    code: str | None, decided: tuple[str, str | None]
) -> None:
    """Only what proves that nothing ran is believed."""
    made = decide(refused(None, code=code), sent())
    assert (made.action, made.error) == decided


@pytest.mark.parametrize("code", ["segue_outcome_unknown", "upstream_closed", "upstream_timeout"])
@pytest.mark.parametrize("status", [400, 424, 502])
def test_what_a_sidecar_cannot_know_is_unknown_whatever_its_status(code: str, status: int) -> None:
    for state in (sent(), sent(own_field=True), sent(by_id=True), unsent()):
        made = decide(refused(status, code=code, message="include", param="previous_response_id"), state)
        assert (made.action, made.error) == ("give_up", "outcome_unknown")
    late = decide(refused(429, code=code, retry_after_s=9.0), sent(remaining_s=1.0))
    assert (late.action, late.error) == ("give_up", "outcome_unknown")


def test_an_error_event_may_say_that_nobody_hears_the_server_any_more() -> None:
    fault = TurnFault(kind="failed", transport="websocket", code="segue_outcome_unknown")
    for state in (sent(), sent(keyed=True, server="same"), RecoveryState(progress="output", resumable=True)):
        made = decide(fault, state)
        assert (made.action, made.error) == ("give_up", "outcome_unknown")
    assert decide(msgspec.structs.replace(fault, code="upstream_timeout"), sent()).error == "response_failed"


def test_a_redirect_is_not_followed_and_has_run_nothing() -> None:
    assert decide(refused(307), sent()).error == "create_refused"


@pytest.mark.parametrize("status", [501, 505, 511])
def test_a_server_that_cannot_do_this_has_run_nothing(status: int) -> None:
    made = decide(refused(status), sent())
    assert (made.action, made.error) == ("give_up", "create_refused")


def test_a_server_that_says_at_once_is_not_hurried() -> None:
    assert decide(refused(429, retry_after_s=0.0), sent(attempts=3)).wait_s == 1.0


def test_a_turn_without_time_says_what_may_have_run() -> None:
    assert decide(LOST, unsent(remaining_s=0.0)).error == "connection_failed"
    assert decide(LOST, sent(keyed=True, remaining_s=0.0)).error == "outcome_unknown"


def test_only_a_field_of_the_client_s_own_is_left_out() -> None:
    fault = refused(400, message="Encrypted content is not supported with this model.")
    assert decide(fault, sent(own_field=True)).action == "leave_out"
    assert decide(fault, sent()).error == "create_refused"
    assert decide(refused(400, param="tools"), sent(own_field=True)).error == "create_refused"
    assert decide(refused(500, param="include"), sent(own_field=True)).error == "outcome_unknown"


def test_a_keyed_create_asks_first_and_repeats_then() -> None:
    assert decide(LOST, sent(keyed=True)).action == "ask"
    assert decide(LOST, sent(keyed=True, server="same")).action == "repeat"
    assert decide(LOST, sent(keyed=True, server="other")).error == "outcome_unknown"


def test_a_started_response_is_resumed_rather_than_repeated() -> None:
    state = RecoveryState(progress="output", keyed=True, resumable=True, retrievable=True)
    assert decide(LOST, state).action == "ask"
    assert decide(LOST, msgspec.structs.replace(state, server="same")).action == "resume"
    assert decide(LOST, msgspec.structs.replace(state, server="other")).action == "retrieve"


def test_a_limit_of_the_connection_in_mid_turn_is_a_lost_connection() -> None:
    fault = TurnFault(kind="failed", transport="websocket", code="websocket_connection_limit_reached")
    assert decide(fault, RecoveryState(progress="output", retrievable=True)).action == "retrieve"
    failed = TurnFault(kind="failed", transport="websocket", code="server_error")
    assert decide(failed, RecoveryState(progress="output", retrievable=True)).error == "response_failed"


def test_waits_grow_to_a_bound_and_are_random_below_it() -> None:
    assert [backoff_s(count, 1.0) for count in (0, 1, 2, 3, 6, 60)] == [0.25, 0.25, 0.5, 1.0, LONGEST_WAIT_S, 8.0]
    assert backoff_s(6, 0.0) == 0.0


def test_every_kind_of_fault_is_an_answer_or_none() -> None:
    assert set(get_args(FaultKind)) == UNANSWERED | {"refused", "failed"}
