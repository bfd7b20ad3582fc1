"""A model that plays cases. The first word of a conversation is the name of its case, and each case is a script of
steps: words, thoughts and calls, written in the form of whichever API the model speaks. What it was asked is told in
one form for all APIs, so that a test can compare it word for word.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeAlias

from segue.testing.replies import ReplyContext, make_reply
from segue.testing.response_schemas import Json
from tests.integration.providers import Api, ModelServer, Turn, message
from tests.upstreams.provider import Exchange, providing

#: One thing that was said: who or what, then the words.
Said: TypeAlias = tuple[str, ...]


class Step(NamedTuple):
    """One answer of the model. A call is its id, and the arguments of the function `weather`."""

    text: str = ""
    calls: tuple[tuple[str, Json], ...] = ()
    thought: str = ""


class CaseProvider(ModelServer):
    """A provider that plays cases; `conversations` holds the bodies of its requests by case. One with a single case
    plays it, however the conversation begins.

    If its clients are `foreign`, no gateway stands before it that would always ask for a stream.
    """

    def __init__(self, api: Api, cases: Mapping[str, Sequence[Step]], *, foreign: bool = False) -> None:
        super().__init__(api, [self._next])
        self.cases = cases
        self.foreign = foreign
        self.conversations: dict[str, list[Json]] = {}
        self.hung_up = 0

    async def play(self, exchange: Exchange) -> None:
        """Answer one request: `abort` never comes to an end, and `error` is refused."""
        body = json.loads(exchange.got.body)
        match self._case(body):
            case "error":
                await exchange.head(400, content_type="application/json")
                error = {"type": "invalid_request_error", "message": "Not with me."}
                await exchange.chunk(json.dumps({"type": "error", "error": error}).encode())
                await exchange.end()
            case "abort":
                await exchange.head()
                for event in _beginning(self.api):
                    await exchange.chunk(event)
                await exchange.gone.wait()
                self.hung_up += 1
            case case if self.foreign:
                ident = f"{case}_{len(self.conversations.get(case, ())) + 1}"
                asked = ReplyContext(request={"model": "m"}, identity=ident, created_at=1, seed=ident)
                reply = make_reply(self.api, self._next(body), asked)
                streamed = bool(body.get("stream"))
                await exchange.head(content_type="text/event-stream" if streamed else "application/json")
                for piece in reply.events if streamed else (reply.whole,):
                    await exchange.chunk(piece)
                await exchange.end()
            case _:
                await super().play(exchange)

    def _case(self, body: Json) -> str:
        return next(iter(self.cases)) if len(self.cases) == 1 else case_of(self.api, body)

    def _next(self, body: Json) -> Turn:
        case = self._case(body)
        asked = self.conversations.setdefault(case, [])
        asked.append(body)
        assert case in self.cases, f"there is no case {case!r}"
        assert len(asked) <= len(self.cases[case]), f"{case} has gone on for longer than its script"
        return write(self.api, self.cases[case][len(asked) - 1], f"{case}_{len(asked)}")


@asynccontextmanager
async def case_provider(
    api: Api, cases: Mapping[str, Sequence[Step]], *, foreign: bool = False
) -> AsyncIterator[CaseProvider]:
    """Run such a provider around a block; no request may have been at fault."""
    server = CaseProvider(api, cases, foreign=foreign)
    async with providing(server.play) as provider:
        server.url = f"{provider.url}/v1"
        yield server
    assert server.faults == []


def write(api: Api, step: Step, ident: str) -> Turn:
    """Write one answer in the JSON of an API. Chat Completions has no thoughts."""
    match api:
        case "chat":
            made = [
                {"index": index, "id": call_id, "type": "function", "function": {"name": "weather", "arguments": text}}
                for index, (call_id, text) in enumerate((one, json.dumps(arguments)) for one, arguments in step.calls)
            ]
            return {"role": "assistant", "content": step.text or None, **({"tool_calls": made} if made else {})}
        case "messages":
            blocks: list[Json] = []
            if step.thought:
                blocks.append({"type": "thinking", "thinking": step.thought, "signature": f"signed {ident}"})
            if step.text:
                blocks.append({"type": "text", "text": step.text})
            uses = [
                {"type": "tool_use", "id": call_id, "name": "weather", "input": arguments}
                for call_id, arguments in step.calls
            ]
            return blocks + uses
        case "responses":
            return _items(step, ident)


def _items(step: Step, ident: str) -> list[Json]:
    items: list[Json] = []
    if step.thought:
        summary = [{"type": "summary_text", "text": step.thought}]
        sealed = {"encrypted_content": f"sealed {ident}"}
        items.append({"type": "reasoning", "id": f"rs_{ident}", "summary": summary, **sealed})
    if step.text:
        items.append(message(f"msg_{ident}", step.text))
    for call_id, arguments in step.calls:
        call = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": "weather"}
        items.append({**call, "arguments": json.dumps(arguments), "status": "completed"})
    return items


def _beginning(api: Api) -> list[bytes]:
    """The first events of an answer that goes on after its first word."""
    asked = ReplyContext(request={"model": "m"}, identity="endless", created_at=1, seed="endless")
    events = make_reply(api, write(api, Step("One, two, three, and so on, for ever."), "abort_1"), asked).events
    words = next(index for index, event in enumerate(events) if b"One" in event or b'"On' in event)
    return list(events[: words + 1])


# --- what the model was asked ----------------------------------------------------------------------------------------


def case_of(api: Api, body: Json) -> str:
    """The name of the case: the first word that the user said."""
    words = next(said[1] for said in transcript(api, body) if said[0] == "user")
    return words.partition(":")[0]


def transcript(api: Api, body: Json) -> list[Said]:
    """What was said, in order, as `("user", words)`, `("assistant", …)`, `("thought", …)`, `("call", id, arguments)`,
    `("output", id, words)` or `("image", url)`. What the system says is left out.
    """
    match api:
        case "chat":
            return [said for one in body["messages"] for said in _of_chat(one)]
        case "messages":
            return [said for one in body["messages"] for said in _of_messages(one)]
        case "responses":
            return [said for one in body["input"] for said in _of_responses(one)]


def _of_chat(one: Json) -> list[Said]:
    role = one["role"]
    if role == "tool":
        return [("output", one["tool_call_id"], _words(one["content"]))]
    said = _parts(role, one.get("content"))
    for call in one.get("tool_calls") or ():
        said.append(("call", call["id"], _canonical(call["function"]["arguments"])))
    return said


def _of_messages(one: Json) -> list[Said]:
    said: list[Said] = []
    content = one["content"]
    blocks: list[Json] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for block in blocks:
        match block["type"]:
            case "thinking":
                said.append(("thought", block["thinking"]))
            case "tool_use":
                said.append(("call", block["id"], json.dumps(block["input"])))
            case "tool_result":
                said.append(("output", block["tool_use_id"], _words(block["content"])))
            case "image":
                said.append(("image", f"data:{block['source']['media_type']};base64,{block['source']['data']}"))
            case _:
                said.append((one["role"], block["text"]))
    return said


def _of_responses(one: Json) -> list[Said]:
    match one.get("type", "message"):
        case "reasoning":
            return [("thought", "".join(part["text"] for part in one["summary"]))]
        case "function_call":
            return [("call", one["call_id"], _canonical(one["arguments"]))]
        case "function_call_output":
            return [("output", one["call_id"], _words(one["output"]))]
        case _:
            return _parts(one["role"], one["content"])


def _parts(role: str, content: Any) -> list[Said]:  # noqa: ANN401 - text or a list of parts
    if role in {"system", "developer"} or not content:
        return []
    if isinstance(content, str):
        return [(role, content)]
    said: list[Said] = []
    for part in content:
        image: Any = part.get("image_url")
        if image is None:
            said.append((role, str(part["text"])))
        else:
            said.append(("image", str(image if isinstance(image, str) else image["url"])))
    return said


def _words(content: Any) -> str:  # noqa: ANN401 - as above
    words: str = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return words


def _canonical(arguments: str) -> str:
    return json.dumps(json.loads(arguments))
