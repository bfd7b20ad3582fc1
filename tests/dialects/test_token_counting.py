"""What a counting endpoint is asked, and what it answers."""

from __future__ import annotations

import json

import pytest

from segue.dialects.interface import Rendered
from segue.dialects.render_cache import RenderCache
from segue.dialects.token_counting import counting_body, read_count
from segue.history.chains import History
from segue.protocol.items import user_message
from segue.protocol.requests import Settings, json_text
from tests.dialects.conversations import DIALECTS, Request

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
SETTINGS = Settings(model="m", instructions=json_text("Be brief."), tools=[TOOL], temperature=0.5, max_output_tokens=9)


@pytest.mark.parametrize(
    ("name", "path", "fields"),
    [
        ("responses", "/responses/input_tokens", {"model", "input", "instructions", "tools"}),
        ("messages", "/messages/count_tokens", {"model", "messages", "system", "tools"}),
    ],
)
def test_a_request_is_cut_down_to_what_is_counted(name: str, path: str, fields: set[str]) -> None:
    """As it stands in the request."""
    dialect, asked = DIALECTS[name], Request(History(None, (user_message("hi"),)), SETTINGS)
    rendered, endpoint = dialect.render(asked, RenderCache(0)), dialect.counting
    assert isinstance(rendered, Rendered)
    assert endpoint is not None
    assert endpoint.path == path
    whole, cut = json.loads(rendered.body), json.loads(counting_body(rendered, endpoint))
    assert cut.keys() == fields
    assert cut == {key: whole[key] for key in fields}
    assert whole.keys() - cut.keys() >= {"stream", "temperature"}


def test_chat_completions_have_nothing_that_counts() -> None:
    assert DIALECTS["chat"].counting is None


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b'{"object":"response.input_tokens","input_tokens":12}', 12),
        (b'{"input_tokens":0,"cache":{}}', 0),
        (b'{"input_tokens":-1}', None),
        (b'{"input_tokens":"12"}', None),
        (b"{}", None),
        (b"[12]", None),
        (b"<html>", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_an_answer_is_a_number(body: bytes, count: int | None) -> None:
    assert read_count(body) == count
