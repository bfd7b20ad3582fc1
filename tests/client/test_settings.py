"""The three switches are free, but for the one pair that cannot work."""

from __future__ import annotations

from itertools import product
from typing import get_args

from segue.client.settings import HistoryMode, SessionSettings, TransportMode, check_switches


def test_only_ids_of_unstored_responses_over_http_are_refused() -> None:
    refused = {
        (transport, store, history)
        for transport, store, history in product(get_args(TransportMode), (True, False), get_args(HistoryMode))
        if check_switches(SessionSettings(model="m", transport=transport, store=store, history=history)) is not None
    }
    assert refused == {("http", False, "id"), ("auto", False, "id")}
