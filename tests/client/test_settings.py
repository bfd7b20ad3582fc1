"""The three switches are free, but for the one pair that cannot work."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from segue.client.settings import HistoryMode, SessionSettings, TransportMode, check_switches


def test_only_ids_of_unstored_responses_over_http_are_refused() -> None:
    refused = {
        (transport, store, history)
        for transport, store, history in product(get_args(TransportMode), (True, False), get_args(HistoryMode))
        if check_switches(SessionSettings(model="m", transport=transport, store=store, history=history)) is not None
    }
    assert refused == {("http", False, "id"), ("auto", False, "id")}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"transport": "ws"}, "'ws' - at `$.transport`"),
        ({"history": "full"}, "'full' - at `$.history`"),
        ({"store": "yes"}, "at `$.store`"),
        ({"model": 5}, "at `$.model`"),
        ({"turn_timeout_s": -1.0}, "at `$.turn_timeout_s`"),
        ({"most_attempts": "8"}, "at `$.most_attempts`"),
    ],
)
def test_a_setting_that_is_none_is_refused_before_anything_is_sent(wrong: dict[str, Any], words: str) -> None:
    problem = check_switches(SessionSettings(**{"model": "m"} | wrong))
    assert problem is not None
    assert problem.startswith("a setting is wrong: ")
    assert problem.endswith(words)
