"""The tables of the client library in the documentation: its rules of recovery, its errors and its settings.

They are written from the tables and classes of the code. Not here: what becomes of each fault, which tests show
(`client_fault_table`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import get_args

from segue.client import errors
from segue.client.errors import ClientError
from segue.client.recovery import CONDITIONS, RULES, UNANSWERED, FaultKind, Progress, RecoveryRule
from tools.markdown import code, table

_PROGRESS: dict[Progress, str] = {
    "not_sent": "not sent",
    "sent": "sent",
    "started": "started",
    "output": "has output",
}
_ACTIONS = {
    "send": "send the create, planned anew",
    "replay": "send the history in place of the id",
    "leave_out": "send it without the field",
    "use_http": "use HTTP from now on",
    "ask": "connect again and ask which server it is",
    "repeat": "send the same create with the same key",
    "resume": "ask for the events after the last one",
    "retrieve": "ask for the stored response",
}
_ERRORS = {
    "connection_failed": "ConnectionFailedError",
    "create_refused": "CreateRefusedError",
    "continuation_lost": "ContinuationLostError",
    "response_failed": "ResponseFailedError",
    "outcome_unknown": "OutcomeUnknownError",
}
_WAITS = {"none": "", "backoff": "backoff", "told": "as told"}


def rules() -> str:
    """Write the rules of recovery, in the order in which they are tried."""
    rows = [
        (str(number), _progress(rule), _faults(rule), _conditions(rule), _done(rule), _WAITS[rule.wait], rule.why)
        for number, rule in enumerate(RULES, 1)
    ]
    return table(("", "the turn is", "fault", "if", "then", "wait", "because"), rows)


def conditions() -> str:
    """Write what the words of the column `if` mean."""
    return table(("word", "means"), ((code(name), condition.words) for name, condition in CONDITIONS.items()))


def client_errors() -> str:
    """Write the errors: what each means, and whether the same turn can be sent again."""
    rows = ((code(kind.__name__), _first(kind), "yes" if kind.safe_to_repeat else "no") for kind in _kinds())
    return table(("error", "means", "safe to send again"), rows)


def _progress(rule: RecoveryRule) -> str:
    if rule.progress == set(get_args(Progress)):
        return "any"
    return ", ".join(words for progress, words in _PROGRESS.items() if progress in rule.progress)


def _faults(rule: RecoveryRule) -> str:
    if rule.faults == UNANSWERED:
        return "no answer"
    return ", ".join(code(kind) for kind in get_args(FaultKind) if kind in rule.faults)


def _conditions(rule: RecoveryRule) -> str:
    return ", ".join(map(code, rule.when))


def _done(rule: RecoveryRule) -> str:
    return f"raise {code(_ERRORS[rule.error])}" if rule.error is not None else f"**{_ACTIONS[rule.action]}**"


def _kinds() -> Iterator[type[ClientError]]:
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, ClientError) and kind is not ClientError:
            yield kind


def _first(kind: type[ClientError]) -> str:
    return (kind.__doc__ or "").split("\n", 1)[0]
