"""The door of the Messages API: messages as items.

A block becomes an item or a part of one that says the same; blocks of one message that stand together become one item.
What only the API's own provider can run or read is written as a call and its output, or as text, so that no other model
misses what was said. Not here: the fields beside the messages (`door_request`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Raw

from segue.protocol.codec import UNREADABLE, decode, decode_value, encode
from segue.protocol.items import Input, Item, join, parse_input
from segue.protocol.problems import Problem, missing, unsupported
from segue.protocol.request_size import RequestLimits, too_many_items

Json = dict[str, Any]

#: How the block of Claude Code begins that names the client for billing, and may change in every request.
BILLING = "x-anthropic-billing-header:"
#: What stands before the output of a tool that has failed: no other API has a field for it.
FAILED_NOTE = "[the tool failed]"

_NULL = Raw(b"null")
_PARTS = frozenset({"image", "document", "search_result"})


class _BlockSource(msgspec.Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: Raw = _NULL


class _GivenBlock(msgspec.Struct):
    """The fields of the blocks that are read; which of them a block has depends on its type."""

    type: str
    text: str | None = None
    source: Raw = _NULL
    title: str | None = None
    context: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = _NULL
    tool_use_id: str | None = None
    content: Raw = _NULL
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _GivenMessage(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Raw]


class _MessageAuthor(msgspec.Struct):
    role: str = ""


class _SystemBlock(msgspec.Struct):
    text: str = ""


_messages = msgspec.json.Decoder(list[_GivenMessage])
_blocks = msgspec.json.Decoder(_GivenBlock)
_sources = msgspec.json.Decoder(_BlockSource)
_contents = msgspec.json.Decoder(str | list[Raw])
_authors = msgspec.json.Decoder(_MessageAuthor)
_system = msgspec.json.Decoder(str | list[_SystemBlock] | None)


def is_from_model(message: bytes | Raw) -> bool:
    """Tell whether a message is the model's."""
    author = decode(message, _authors)
    return not isinstance(author, Problem) and author.role == "assistant"


def system_text(raw: bytes | Raw) -> str:
    """Return the text of `system`, without a block that is for billing. What is of no known shape has none."""
    try:
        system = _system.decode(raw)
    except UNREADABLE:
        return ""
    if system is None or isinstance(system, str):
        return system or ""
    texts = (block.text for block in system)
    return "\n\n".join(text for text in texts if text and not text.startswith(BILLING))


def read_messages(raw: bytes | Raw, limits: RequestLimits, *, keeps_unknown: bool = False) -> Input | Problem:
    """Read `messages` as the input of a turn. With `keeps_unknown`, the JSON of a block stands for it as a text."""
    messages = decode(raw, _messages, "messages")
    if isinstance(messages, Problem):
        return messages
    items: list[Item] = []
    for index, message in enumerate(messages):
        reader = _MessageReader(message.role, f"messages[{index}].content", keeps_unknown=keeps_unknown)
        problem = reader.read(message.content)
        if problem is not None:
            return problem
        items += reader.items
        if len(items) > limits.items:
            return too_many_items(limits, len(items))
    return parse_input(join(items), limits)


class _MessageReader:
    """Reads one message; `items` are those that it becomes."""

    def __init__(self, role: Literal["user", "assistant", "system"], where: str, *, keeps_unknown: bool) -> None:
        self._keeps_unknown = keeps_unknown
        self.items: list[Item] = []
        self._role = role
        self._where = where
        self._parts: list[Json] = []
        self._readers: Mapping[str, Callable[[_GivenBlock, str], Problem | None]] = {
            "text": self._read_text,
            "image": self._read_part,
            "document": self._read_part,
            "search_result": self._read_part,
            "tool_use": self._read_call,
            "server_tool_use": self._read_call,
            "mcp_tool_use": self._read_call,
            "tool_result": self._read_output,
            "thinking": self._read_thinking,
            "redacted_thinking": self._read_thinking,
        }

    def read(self, content: str | list[Raw]) -> Problem | None:
        """Read the content of the message."""
        if isinstance(content, str):
            self._add_text(content)
            self._end_message()
            return None
        for index, raw in enumerate(content):
            where = f"{self._where}[{index}]"
            value = decode_value(raw, where)
            block = decode(raw, _blocks, where)
            if isinstance(value, Problem) or isinstance(block, Problem):
                return value if isinstance(value, Problem) else block if isinstance(block, Problem) else None
            problem = self._reader(block)(block, where)
            if problem is not None and not (self._keeps_unknown and problem.code == "unsupported_parameter"):
                return problem
            if problem is not None:
                self._add_text(bytes(raw).decode())
        self._end_message()
        return None

    def _reader(self, block: _GivenBlock) -> Callable[[_GivenBlock, str], Problem | None]:
        own = self._readers.get(block.type)
        if own is None and block.type.endswith("_tool_result"):
            return self._read_output
        return own or self._refuse

    def _refuse(self, block: _GivenBlock, where: str) -> Problem:
        return unsupported(f"{where}.type", f"'{block.type[:40]}' is only for models of this API's own provider")

    def _add_text(self, text: str) -> None:
        if self._role == "assistant":
            self._parts.append({"type": "output_text", "text": text, "annotations": []})
        else:
            self._parts.append({"type": "input_text", "text": text})

    def _read_text(self, block: _GivenBlock, where: str) -> Problem | None:
        if block.text is None:
            return missing(f"{where}.text")
        self._add_text(block.text)
        return None

    def _read_part(self, block: _GivenBlock, where: str) -> Problem | None:
        parts = _parts_of(block, where)
        if isinstance(parts, Problem):
            return parts
        self._parts += parts
        return None

    def _read_call(self, block: _GivenBlock, where: str) -> Problem | None:
        if not block.id or not block.name:
            return missing(f"{where}.id" if not block.id else f"{where}.name")
        arguments = "{}" if block.input == _NULL else bytes(block.input).decode()
        self._add({"type": "function_call", "call_id": block.id, "name": block.name, "arguments": arguments})
        return None

    def _read_output(self, block: _GivenBlock, where: str) -> Problem | None:
        if not block.tool_use_id:
            return missing(f"{where}.tool_use_id")
        output = _output_of(block, where)
        if isinstance(output, Problem):
            return output
        self._add({"type": "function_call_output", "call_id": block.tool_use_id, "output": output})
        return None

    def _read_thinking(self, block: _GivenBlock, _: str) -> Problem | None:
        summary = [{"type": "summary_text", "text": block.thinking}] if block.thinking else []
        sealed = block.signature or block.data
        self._add({"type": "reasoning", "summary": summary} | ({"encrypted_content": sealed} if sealed else {}))
        return None

    def _add(self, item: Json) -> None:
        self._end_message()
        self.items.append(encode(item))

    def _end_message(self) -> None:
        if self._parts:
            self.items.append(encode({"type": "message", "role": self._role, "content": self._parts}))
            self._parts = []


def _output_of(block: _GivenBlock, where: str) -> str | list[Json] | Problem:
    """Return what a tool has put out: a text if it is one, else parts."""
    if block.content == _NULL:
        parts: list[Json] = []
    elif block.type != "tool_result":
        parts = [{"type": "input_text", "text": bytes(block.content).decode()}]
    else:
        content = decode(block.content, _contents, f"{where}.content")
        if isinstance(content, Problem):
            return content
        read = [{"type": "input_text", "text": content}] if isinstance(content, str) else _read_parts(content, where)
        if isinstance(read, Problem):
            return read
        parts = read
    if block.is_error:
        parts = [{"type": "input_text", "text": FAILED_NOTE}, *parts]
    if not parts:
        return ""
    only = parts[0] if len(parts) == 1 else {}
    return only["text"] if only.get("type") == "input_text" else parts


def _read_parts(content: Iterable[Raw], where: str) -> list[Json] | Problem:
    parts: list[Json] = []
    for index, raw in enumerate(content):
        place = f"{where}.content[{index}]"
        block = decode(raw, _blocks, place)
        if isinstance(block, Problem):
            return block
        if block.text is not None:
            parts.append({"type": "input_text", "text": block.text})
            continue
        read = (
            _parts_of(block, place) if block.type in _PARTS else [{"type": "input_text", "text": bytes(raw).decode()}]
        )
        if isinstance(read, Problem):
            return read
        parts += read
    return parts


def _parts_of(block: _GivenBlock, where: str) -> list[Json] | Problem:
    """Return an image, a document or a search result as parts of a message."""
    if block.type == "search_result":
        return _tagged("search_result", block, block.content, where)
    source = decode(block.source, _sources, f"{where}.source")
    if isinstance(source, Problem):
        return source
    if block.type == "image":
        return _image(source, where)
    if source.type == "text":
        return _tagged("document", block, Raw(encode(source.data or "")), where)
    if source.type == "content":
        return _tagged("document", block, source.content, where)
    return _file(source, block.title, where)


def _image(source: _BlockSource, where: str) -> list[Json] | Problem:
    if source.type == "base64" and source.data is not None:
        url = f"data:{source.media_type or 'image/png'};base64,{source.data}"
        return [{"type": "input_image", "image_url": url}]
    if source.type == "url" and source.url is not None:
        return [{"type": "input_image", "image_url": source.url}]
    return unsupported(f"{where}.source", "send the image's data or its URL: files are kept by this API's own provider")


def _file(source: _BlockSource, title: str | None, where: str) -> list[Json] | Problem:
    if source.type == "base64" and source.data is not None:
        media = source.media_type or "application/pdf"
        data = f"data:{media};base64,{source.data}"
        return [{"type": "input_file", "filename": title or "document.pdf", "file_data": data}]
    if source.type == "url" and source.url is not None:
        return [{"type": "input_file", "file_url": source.url}]
    return unsupported(f"{where}.source", "send the document itself: files are kept by this API's own provider")


def _tagged(tag: str, block: _GivenBlock, content: Raw, where: str) -> list[Json] | Problem:
    """Return what is text with its title around it, and images as they are."""
    value = decode(content, _contents, where)
    if isinstance(value, Problem):
        return value
    parts = [{"type": "input_text", "text": value}] if isinstance(value, str) else _read_parts(value, where)
    if isinstance(parts, Problem):
        return parts
    title = f' title="{block.title}"' if block.title else ""
    context = f"{block.context}\n" if block.context else ""
    opening = {"type": "input_text", "text": f"<{tag}{title}>\n{context}"}
    return _joined([opening, *parts, {"type": "input_text", "text": f"\n</{tag}>"}])


def _joined(parts: Iterable[Json]) -> list[Json]:
    """Join texts that stand together."""
    joined: list[Json] = []
    for part in parts:
        if joined and part["type"] == joined[-1]["type"] == "input_text":
            joined[-1] = {"type": "input_text", "text": joined[-1]["text"] + part["text"]}
        else:
            joined.append(part)
    return joined
