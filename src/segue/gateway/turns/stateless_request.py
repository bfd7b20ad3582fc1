"""The last turn of a stored conversation as one request of a provider's API, which needs no gateway. Pure.

It holds what the model saw, in that API's words, with the settings that the turn's own request had: a history that was
compacted begins with its summary. Reasoning that only its provider can read is left out, since nobody knows where the
request will be sent. Not here: reading the conversation (`conversation_transfer`).
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from segue.config import ProviderDialect
from segue.dialects.chat.request import ChatDialect
from segue.dialects.interface import Dialect
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import ResponsesDialect
from segue.gateway.turns.compaction import Compactions
from segue.history.chains import Turn
from segue.history.records import Record
from segue.protocol.configuration_items import updates_in, with_updates
from segue.protocol.items import input_of
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings
from segue.protocol.responses import settings_of
from segue.upstreams.interface import UpstreamRequest

#: Nobody can read the reasoning of a provider of this name.
_NOBODY = "nobody"
_MAX_TOKENS = 32_000


class StatelessRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request: where to POST it below the base URL of the API, and its body; `warnings` say what was left out."""

    object: str = "segue.request"
    dialect: ProviderDialect
    path: str
    warnings: tuple[str, ...]
    body: msgspec.Raw


def write_request(records: list[Record], name: ProviderDialect, compactions: Compactions) -> StatelessRequest | Problem:
    """Write the request of the last of a conversation's records, which begin at the root."""
    parent: Turn | None = None
    for record in records[:-1]:
        parent = Turn(
            id=record.id,
            parent=parent,
            input=record.input,
            output=record.output,
            calls=record.calls,
            stored=True,
        )
        compactions.stand_in(record.tenant, parent)
    last, dialect = records[-1], _dialect(name)
    settings = _settings(records, name)
    if isinstance(settings, Problem):
        return settings
    shown = compactions.show(last.tenant, parent, input_of(last.input), upstreams=())
    request = UpstreamRequest(settings.model, last.id, last.tenant, shown, settings)
    rendered = dialect.render(request, RenderCache(0))
    if isinstance(rendered, Problem):
        return rendered
    path = dialect.path(settings.model)
    return StatelessRequest(dialect=name, path=path, warnings=rendered.warnings, body=msgspec.Raw(rendered.body))


def _settings(records: list[Record], name: ProviderDialect) -> Settings | Problem:
    """Return the settings of the last turn, with what items of the history change, unless the API has such items."""
    settings = settings_of(records[-1].echo)
    updates = updates_in(item for record in records for item in record.input)
    return settings if name == "responses" or not updates else with_updates(settings, updates)


def _dialect(name: ProviderDialect) -> Dialect:
    match name:
        case "chat":
            return ChatDialect(_NOBODY)
        case "messages":
            return MessagesDialect(_NOBODY, max_tokens=_MAX_TOKENS)
        case "responses":
            return ResponsesDialect(_NOBODY)
        case _:
            assert_never(name)
