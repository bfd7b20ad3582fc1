"""The models of a gateway as its clients list them: as OpenAI's API does, and page by page as Anthropic's does.

https://platform.openai.com/docs/api-reference/models, https://platform.claude.com/docs/en/api/models-list. Not here:
which models there are, and lists of providers (`model_list`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from segue.protocol.codec import encode, explain
from segue.protocol.problems import Problem, quoted


class _OpenAIModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: str = "model"
    created: int
    owned_by: str = "segue"


class _OpenAIList(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: Sequence[_OpenAIModel]


class _AnthropicModel(msgspec.Struct, frozen=True):
    id: str
    display_name: str
    created_at: str
    type: str = "model"
    lifecycle: str = "active"


class _AnthropicPage(msgspec.Struct, frozen=True):
    data: Sequence[_AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class _ModelPageQuery(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20
    after_id: str | None = None
    before_id: str | None = None


def openai_model(name: str, created_at: float) -> bytes:
    """Write one model in the words of OpenAI's API; time in unix seconds."""
    return encode(_OpenAIModel(id=name, created=int(created_at)))


def openai_list(names: Sequence[str], created_at: float) -> bytes:
    """Write all models in the words of OpenAI's API."""
    return encode(_OpenAIList(data=[_OpenAIModel(id=name, created=int(created_at)) for name in names]))


def anthropic_model(name: str, created_at: float) -> bytes:
    """Write one model in the words of Anthropic's API; time in unix seconds."""
    return encode(_anthropic(name, created_at))


def anthropic_page(names: Sequence[str], created_at: float, query: Mapping[str, str]) -> bytes | Problem:
    """Write the page that a client asks for in its query, in the words of Anthropic's API."""
    try:
        wanted = msgspec.convert(dict(query), _ModelPageQuery, strict=False)
    except msgspec.ValidationError as error:
        return explain(error)
    for param, cursor in (("after_id", wanted.after_id), ("before_id", wanted.before_id)):
        if cursor is not None and cursor not in names:
            return Problem("invalid_value", f"'{param}' {quoted(cursor)} is the id of no model here.", param)
    if wanted.before_id is not None:
        rest = names[: names.index(wanted.before_id)]
        page, has_more = rest[-wanted.limit :], len(rest) > wanted.limit
    else:
        rest = names if wanted.after_id is None else names[names.index(wanted.after_id) + 1 :]
        page, has_more = rest[: wanted.limit], len(rest) > wanted.limit
    first, last = (page[0], page[-1]) if page else (None, None)
    return encode(_AnthropicPage([_anthropic(name, created_at) for name in page], has_more, first, last))


def _anthropic(name: str, created_at: float) -> _AnthropicModel:
    moment = datetime.fromtimestamp(int(created_at), UTC)
    return _AnthropicModel(name, name, moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
