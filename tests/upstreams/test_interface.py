"""What the interface holds besides types: a key that does not show itself, and who can be stopped."""

from __future__ import annotations

from segue.history.chains import History
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import user_message
from segue.protocol.requests import Settings
from segue.upstreams.http import HttpUpstream
from segue.upstreams.interface import Secret, UpstreamRequest, can_stop_between_items
from segue.upstreams.scripted import ScriptedUpstream
from segue.upstreams.websocket import WebSocketUpstream


def test_a_secret_does_not_show_itself() -> None:
    history = History(None, (user_message("Hi"),))
    settings = Settings(model="m")
    secret = Secret("sk-client")
    asked = UpstreamRequest("m", new_response_id(bytes(ENTROPY_BYTES)), "ann", history, settings, secret)
    assert "sk-client" not in f"{asked!r} {asked} {secret!r} {secret}"
    assert secret.reveal() == "sk-client"


def test_a_turn_can_stop_between_items_if_each_upstream_can() -> None:
    """One that does not say so cannot."""

    class Never(ScriptedUpstream):
        @property
        def stops_between_items(self) -> bool:
            return False

    assert can_stop_between_items([ScriptedUpstream(), ScriptedUpstream()])
    assert not can_stop_between_items([ScriptedUpstream(), Never()])
    assert HttpUpstream.stops_between_items
    assert not WebSocketUpstream.stops_between_items, "its socket, and what the provider keeps there, would be gone"
