"""Replies as providers stream them, made for the tests: three characters a piece, with all that is not text around."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

PIECE = 3


def pieces(text: str) -> Iterator[str]:
    for at in range(0, len(text), PIECE):
        yield text[at : at + PIECE]


def event(data: object, name: str = "") -> bytes:
    named = f"event: {name}\n".encode() if name else b""
    return named + b"data: " + msgspec.json.encode(data) + b"\n\n"


def typed(kind: str, **fields: object) -> bytes:
    return event({"type": kind} | fields, kind)


def responses(*items: dict[str, object]) -> bytes:
    """Stream output items in the order of keys and events that OpenAI has."""
    stream = [typed("response.created", response={"id": "resp_1", "output": [], "instructions": "be brief"})]
    for index, item in enumerate(items):
        bare = item | {key: type(item[key])() for key in ("content", "arguments", "input", "summary") if key in item}
        if "status" in item:
            bare["status"] = "in_progress"
        stream.append(typed("response.output_item.added", output_index=index, item=bare))
        at = {"item_id": item["id"], "output_index": index}
        stream += _text_events(item, at)
        stream.append(typed("response.output_item.done", output_index=index, item=item))
    stream.append(typed("response.completed", response={"id": "resp_1", "output": list(items)}))
    return b"".join(stream)


def _text_events(item: dict[str, object], at: dict[str, object]) -> Iterator[bytes]:
    content, summary = item.get("content"), item.get("summary")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        kind = str(part["type"]).removesuffix("_text")
        name = "refusal" if kind == "refusal" else "output_text"
        place = at | {"content_index": index}
        yield typed("response.content_part.added", part={"type": part["type"]}, **place)
        text = part["refusal"] if kind == "refusal" else part["text"]
        for piece in pieces(text):
            yield typed(f"response.{name}.delta", delta=piece, logprobs=[], **place)
        yield typed(f"response.{name}.done", text=text, **place)
        yield typed("response.content_part.done", part=part, **place)
    for index, part in enumerate(summary if isinstance(summary, list) else ()):
        for piece in pieces(part["text"]):
            yield typed("response.reasoning_summary_text.delta", delta=piece, summary_index=index, **at)
        yield typed("response.reasoning_summary_text.done", text=part["text"], summary_index=index, **at)
    for key, kind in (("arguments", "function_call_arguments"), ("input", "custom_tool_call_input")):
        text = item.get(key)
        if isinstance(text, str):
            for piece in pieces(text):
                yield typed(f"response.{kind}.delta", delta=piece, **at)
            yield typed(f"response.{kind}.done", **{key: text}, **at)


def chat(content: str | None, *calls: tuple[str, str, str], reasoning: str = "") -> bytes:
    """Stream one assistant message; calls are (id, name, arguments)."""

    def chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})

    stream = [chunk({"role": "assistant", "content": None if content is None else "", "refusal": None})]
    stream += [chunk({"reasoning_content": piece}) for piece in pieces(reasoning)]
    stream += [chunk({"content": piece}) for piece in pieces(content or "")]
    for index, (call_id, name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        stream.append(
            chunk({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})
        )
        stream += [
            chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}) for piece in pieces(arguments)
        ]
    stream.append(chunk({}, "tool_calls" if calls else "stop"))
    stream.append(event({"id": "chatcmpl-1", "choices": [], "usage": {"total_tokens": 3}}))
    return b"".join(stream) + b"data: [DONE]\n\n"


def messages(*blocks: dict[str, object]) -> bytes:
    """Stream content blocks; the input of a tool is given as the model's own JSON text under `input`."""
    stream = [typed("message_start", message={"id": "msg_1", "role": "assistant", "content": []}), typed("ping")]
    for index, block in enumerate(blocks):
        kind = str(block["type"])
        start = dict(block)
        deltas: list[tuple[str, str, str]] = []
        for key, delta in (("text", "text_delta"), ("thinking", "thinking_delta"), ("signature", "signature_delta")):
            if key in block:
                deltas += [(delta, key, piece) for piece in pieces(str(block[key]))]
                start[key] = ""
        if kind == "tool_use":
            deltas += [("input_json_delta", "partial_json", piece) for piece in ("", *pieces(str(block["input"])))]
            start["input"] = {}
        stream.append(typed("content_block_start", index=index, content_block=start))
        stream += [
            typed("content_block_delta", index=index, delta={"type": delta, key: piece}) for delta, key, piece in deltas
        ]
        stream.append(typed("content_block_stop", index=index))
    stream.append(typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}))
    stream.append(typed("message_stop"))
    return b"".join(stream)


def gemini(*parts: dict[str, object]) -> bytes:
    """Stream the parts of one candidate, texts in pieces."""

    def chunk(part: dict[str, object], **fields: object) -> bytes:
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0} | fields
        return event({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3}})

    stream: list[bytes] = []
    for part in parts:
        text = part.get("text")
        if isinstance(text, str):
            cut = list(pieces(text))
            signature = {key: value for key, value in part.items() if key == "thoughtSignature"}
            plain = {key: value for key, value in part.items() if key != "thoughtSignature"}
            stream += [chunk(plain | {"text": piece}) for piece in cut[:-1]]
            stream.append(chunk(plain | {"text": cut[-1]} | signature))
        else:
            stream.append(chunk(part))
    stream.append(chunk({"text": ""}, finishReason="STOP"))
    return b"".join(stream)
