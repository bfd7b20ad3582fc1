"""The requests of agent programs: bodies and head lines in the shape and size of real ones, per agent and API.

An `AgentClient` is one agent program: how it begins a conversation, how it writes what the model said and what a tool
returned, and what each request has around that. Shapes and sizes were taken from real agents. All text is generated
(`prose`); no real prompt is copied. Not here: the order of turns (`sessions`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from segue.bench.workloads.prose import ProseWriter
from segue.bench.workloads.toolsets import make_tools
from segue.http.heads import Line
from segue.testing.replies import Api, Json, compact

_STAINLESS = (
    ("X-Stainless-Retry-Count", "0"),
    ("X-Stainless-Lang", "js"),
    ("X-Stainless-OS", "Linux"),
    ("X-Stainless-Arch", "x64"),
    ("X-Stainless-Runtime", "node"),
    ("X-Stainless-Runtime-Version", "v20.20.2"),
)
_FETCH = (("accept-language", "*"), ("sec-fetch-mode", "cors"), ("accept-encoding", "gzip, deflate"))
_TASK = "The tests in this repository fail. Find out why, fix the code (not the tests) and make the whole suite pass."


AgentKind = Literal[
    "codex", "codex-ws", "claude-code", "pi", "qwen-code", "gemini-cli", "openai-agents", "mini-swe-agent"
]


class ToolUse(msgspec.Struct, frozen=True):
    """A use of a tool by the model."""

    name: str
    arguments: Json


class ModelOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said in one turn; `sealed` is the encrypted or signed form of `thought`, if the API has one."""

    text: str
    thought: str
    sealed: str
    call: ToolUse | None


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool returned."""

    call_id: str
    name: str
    output: str


class AgentClient(ABC):
    """One agent program in one session."""

    api: Api
    target: bytes
    streamed = True
    transport: Literal["http", "websocket"] = "http"
    seals = True
    """Whether the model's output has a long encrypted or signed part."""

    def __init__(self, agent: ProseWriter, writer: ProseWriter) -> None:
        self.agent = agent  # writes the text that all sessions of this agent share
        self.writer = writer
        self.session = writer.identifier()
        self.task = f"{_TASK} {writer.sentence()}"
        self.replied: str | None = None  # the id of the last reply
        self.key = f"sk-{agent.secret(48).replace('/', 'a').replace('+', 'b')}"

    @abstractmethod
    def head(self) -> Sequence[tuple[str, str]]:
        """Return the head lines of a request, without Host and framing."""

    @abstractmethod
    def begin(self) -> list[Json]:
        """Return the conversation before the first turn."""

    @abstractmethod
    def body(self, items: list[Json]) -> Json:
        """Return the request."""

    @abstractmethod
    def said(self, said: ModelOutput) -> tuple[Any, list[Json], str]:
        """Return the model's output in the form of its API, the items that the agent repeats, and the call's id."""

    @abstractmethod
    def returned(self, returned: ToolResult) -> Json:
        """Return what a tool returned as an item of the conversation."""

    def lines(self) -> tuple[Line, ...]:
        """Return the head lines as bytes."""
        return tuple(Line(name.encode(), value.encode()) for name, value in self.head())


def make_client(kind: AgentKind, agent: ProseWriter, writer: ProseWriter) -> AgentClient:
    """Start an agent program: `agent` writes its prompts and tools, `writer` the text of this session."""
    made: Mapping[AgentKind, type[AgentClient]] = {
        "codex": _Codex,
        "codex-ws": _CodexSocket,
        "claude-code": _ClaudeCode,
        "pi": _Pi,
        "qwen-code": _QwenCode,
        "gemini-cli": _GeminiCli,
        "openai-agents": _OpenAIAgents,
        "mini-swe-agent": _MiniSwe,
    }
    return made[kind](agent, writer)


# --- Responses -------------------------------------------------------------------------------------------------------


class _ResponsesClient(AgentClient):
    api: Api = "responses"
    target = b"/v1/responses"

    def said(self, said: ModelOutput) -> tuple[Any, list[Json], str]:
        writer, items = self.writer, list[Json]()
        call_id = f"call_{writer.hexadecimal(24)}"
        if self.seals:
            summary = [{"type": "summary_text", "text": said.thought}]
            reasoning = {"id": f"rs_{writer.hexadecimal(32)}", "type": "reasoning", "summary": summary}
            items.append({**reasoning, "encrypted_content": said.sealed})
        if said.text:
            content = [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}]
            message = {"id": f"msg_{writer.hexadecimal(32)}", "type": "message", "status": "completed"}
            items.append({**message, "role": "assistant", "content": content})
        if said.call is not None:
            function = {"id": f"fc_{writer.hexadecimal(32)}", "type": "function_call", "status": "completed"}
            arguments = json.dumps(said.call.arguments, ensure_ascii=False)
            items.append({**function, "call_id": call_id, "name": said.call.name, "arguments": arguments})
        return items, [self.echo(item) for item in items], call_id

    def echo(self, item: Json) -> Json:
        """Return an item of the model as the agent repeats it."""
        return item

    def returned(self, returned: ToolResult) -> Json:
        return {"type": "function_call_output", "call_id": returned.call_id, "output": returned.output}


class _Codex(_ResponsesClient):
    """Codex CLI: long developer messages, reasoning kept encrypted, metadata in head and body."""

    def __init__(self, agent: ProseWriter, writer: ProseWriter) -> None:
        super().__init__(agent, writer)
        made = make_tools(agent, 10, 8300)
        self._tools = [_function(tool, {"strict": False}) for tool in made]
        self._turn = writer.identifier()
        ids = {"installation_id": writer.identifier(), "session_id": self.session, "thread_id": self.session}
        turn = {"agent_name": "/root", "turn_id": self._turn, "window_id": f"{self.session}:0", "window_number": 0}
        commit = {writer.folder: {"latest_git_commit_hash": writer.hexadecimal(40), "has_changes": False}}
        settings = {"request_kind": "turn", "sandbox": "none", "workspaces": commit, "model": "gpt-5.5"}
        context = {"context_window_id": writer.identifier(), "root_turn_id": self._turn, "thread_source": "user"}
        self._metadata = compact({**ids, **turn, **context, **settings, "turn_started_at_unix_ms": 1795382357522})
        self._installation = ids["installation_id"]

    def head(self) -> Sequence[tuple[str, str]]:
        return (
            ("x-codex-beta-features", "remote_compaction_v2"),
            ("x-codex-window-id", f"{self.session}:0"),
            ("x-codex-turn-metadata", self._metadata),
            ("x-client-request-id", self.session),
            ("session-id", self.session),
            ("thread-id", self.session),
            ("accept", "text/event-stream"),
            ("content-type", "application/json"),
            ("authorization", f"Bearer {self.key}"),
            ("originator", "codex_exec"),
            ("user-agent", "codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm (codex_exec; 0.169.0)"),
        )

    def begin(self) -> list[Json]:
        texts = (("developer", (21_300,)), ("developer", (4_690, 362, 104)), ("user", (375,)))
        items = [self._message(role, [self.agent.prompt(size) for size in sizes]) for role, sizes in texts]
        return [*items, self._message("user", [self.task])]

    def _message(self, role: str, texts: Sequence[str]) -> Json:
        content = [{"type": "input_text", "text": text} for text in texts]
        return {"type": "message", "id": f"msg_{self.writer.identifier()}", "role": role, "content": content}

    def body(self, items: list[Json]) -> Json:
        return {
            "model": "gpt-5.5",
            "stream": True,
            "input": items,
            "tools": self._tools,
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "reasoning": {"effort": "medium"},
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": self.session,
            "text": {"verbosity": "low"},
            "client_metadata": self._client_metadata(),
        }

    def _client_metadata(self) -> Json:
        """Its keys come in another order in each request, as those of a hash map do."""
        fields = {
            "thread_id": self.session,
            "session_id": self.session,
            "root_turn_id": self._turn,
            "turn_id": self._turn,
            "x-codex-installation-id": self._installation,
            "x-codex-window-id": f"{self.session}:0",
            "x-codex-turn-metadata": self._metadata,
        }
        return {name: fields[name] for name in self.writer.random.sample(list(fields), len(fields))}

    def echo(self, item: Json) -> Json:
        match item["type"]:
            case "reasoning":
                sealed = item["encrypted_content"]
                kept = {"type": "reasoning", "id": item["id"], "summary": item["summary"]}
                return {**kept, "content": None, "encrypted_content": sealed}
            case "message":
                return {name: item[name] for name in ("type", "status", "id", "role", "content")}
            case _:
                return {name: item[name] for name in ("type", "status", "id", "name", "arguments", "call_id")}

    def returned(self, returned: ToolResult) -> Json:
        writer = self.writer
        text = (
            f"Chunk ID: {writer.hexadecimal(6)}\nWall time: {writer.random.uniform(0, 2):.4f} seconds\n"
            f"Process exited with code 0\nOriginal token count: {len(returned.output) // 4}\nOutput:\n{returned.output}"
        )
        identity = f"fco_{writer.identifier()}"
        return {"type": "function_call_output", "id": identity, "call_id": returned.call_id, "output": text}


class _CodexSocket(_Codex):
    """Codex CLI in WebSocket mode: only what is new, and the id of the reply before it."""

    transport: Literal["http", "websocket"] = "websocket"

    def head(self) -> Sequence[tuple[str, str]]:
        kept = [line for line in super().head() if line[0] not in {"accept", "content-type"}]
        return (*kept, ("openai-beta", "responses_websockets=2026-02-06"))

    def body(self, items: list[Json]) -> Json:
        whole = super().body(items)
        whole["client_metadata"]["x-codex-ws-stream-request-start-ms"] = f"179538{self.writer.random.randint(0, 10**7)}"
        previous = {} if self.replied is None else {"previous_response_id": self.replied}
        return {"type": "response.create", "model": whole.pop("model"), **previous, **whole}


class _OpenAIAgents(_ResponsesClient):
    """A program on the openai-agents SDK: few instructions, not streamed."""

    streamed = False

    def __init__(self, agent: ProseWriter, writer: ProseWriter) -> None:
        super().__init__(agent, writer)
        self._tools = [_function(tool, {"strict": True}) for tool in make_tools(agent, 3, 850)]
        self._instructions = agent.prompt(178)

    def head(self) -> Sequence[tuple[str, str]]:
        return (
            ("Accept-Encoding", "gzip, deflate"),
            ("Connection", "keep-alive"),
            ("authorization", f"Bearer {self.key}"),
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("user-agent", "Agents/Python 0.24.0"),
            *_python_stainless("async:asyncio"),
        )

    def begin(self) -> list[Json]:
        return [{"content": self.task, "role": "user"}]

    def body(self, items: list[Json]) -> Json:
        start: Json = {"model": "gpt-5.5", "include": [], "input": items, "instructions": self._instructions}
        return {**start, "reasoning": {"effort": "low"}, "tools": self._tools}

    def echo(self, item: Json) -> Json:
        names: Mapping[str, tuple[str, ...]] = {
            "reasoning": ("id", "summary", "type", "encrypted_content"),
            "message": ("id", "content", "role", "status", "type"),
        }
        usual = ("arguments", "call_id", "name", "type", "id", "status")
        return {name: item[name] for name in names.get(item["type"], usual)}

    def returned(self, returned: ToolResult) -> Json:
        return {"call_id": returned.call_id, "output": returned.output, "type": "function_call_output"}


def _function(tool: Json, more: Json) -> Json:
    named = {"type": "function", "name": tool["name"], "description": tool["description"]}
    return {**named, **more, "parameters": tool["schema"]}


def _python_stainless(how: str) -> tuple[tuple[str, str], ...]:
    return (
        ("x-stainless-lang", "python"),
        ("x-stainless-package-version", "3.54.0"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.11.7"),
        ("x-stainless-async", how),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-read-timeout", "600"),
    )


# --- Chat Completions ------------------------------------------------------------------------------------------------


class _ChatClient(AgentClient):
    api: Api = "chat"
    target = b"/v1/chat/completions"
    seals = False

    def said(self, said: ModelOutput) -> tuple[Any, list[Json], str]:
        call_id = f"call_{self.writer.hexadecimal(20)}"
        message: Json = {"content": said.text}
        if said.call is not None:
            # the model writes its JSON with spaces; agents parse it and write it without
            function = {"name": said.call.name, "arguments": json.dumps(said.call.arguments, ensure_ascii=False)}
            message["tool_calls"] = [{"index": 0, "id": call_id, "type": "function", "function": function}]
        return message, [self.echo(said, call_id)], call_id

    def echo(self, said: ModelOutput, call_id: str) -> Json:
        """Return what the model said as the agent repeats it."""
        echoed: Json = {"role": "assistant", "content": said.text or None}
        if said.call is not None:
            function = {"name": said.call.name, "arguments": compact(said.call.arguments)}
            echoed["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
        return echoed


class _QwenCode(_ChatClient):
    """Qwen Code: the largest prompt of all, 39 KB of instructions and 39 KB of tools."""

    def __init__(self, agent: ProseWriter, writer: ProseWriter) -> None:
        super().__init__(agent, writer)
        made = make_tools(agent, 15, 38_000)
        self._tools = [{"type": "function", "function": _parameters(tool)} for tool in made]

    def head(self) -> Sequence[tuple[str, str]]:
        return (
            ("connection", "keep-alive"),
            ("Accept", "application/json"),
            *_STAINLESS,
            ("X-Stainless-Package-Version", "5.11.0"),
            ("authorization", f"Bearer {self.key}"),
            ("User-Agent", "QwenCode/0.15.10 (linux; x64)"),
            ("content-type", "application/json"),
            *_FETCH,
        )

    def begin(self) -> list[Json]:
        context = [{"type": "text", "text": self.agent.prompt(577)}, {"type": "text", "text": self.task}]
        return [{"role": "system", "content": self.agent.prompt(37_900)}, {"role": "user", "content": context}]

    def body(self, items: list[Json]) -> Json:
        start: Json = {"model": "qwen3-coder-plus", "messages": items, "stream": True}
        return {**start, "stream_options": {"include_usage": True}, "tools": self._tools, "max_tokens": 8000}

    def returned(self, returned: ToolResult) -> Json:
        return {
            "role": "tool",
            "tool_call_id": returned.call_id,
            "content": [{"type": "text", "text": returned.output}],
        }


class _MiniSwe(_ChatClient):
    """mini-swe-agent: one tool, not streamed, tool output wrapped in JSON once more."""

    streamed = False

    def head(self) -> Sequence[tuple[str, str]]:
        return (
            ("Accept-Encoding", "gzip, deflate, zstd"),
            ("Connection", "keep-alive"),
            ("authorization", f"Bearer {self.key}"),
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("user-agent", "OpenAI/Python 3.54.0"),
            *_python_stainless("false"),
        )

    def begin(self) -> list[Json]:
        system = "You are a helpful assistant that can interact with a computer."
        task = f"Please solve this issue: {self.task}\n\n{self.agent.prompt(2_840)}"
        return [{"role": "system", "content": system}, {"role": "user", "content": task}]

    def body(self, items: list[Json]) -> Json:
        command = {"type": "string", "description": "The bash command to execute"}
        schema = {"type": "object", "properties": {"command": command}, "required": ["command"]}
        bash = {"name": "bash", "description": "Execute a bash command", "parameters": schema}
        return {"model": "gpt-5.5", "messages": items, "tools": [{"type": "function", "function": bash}]}

    def echo(self, said: ModelOutput, call_id: str) -> Json:
        echoed: Json = {"content": said.text, "role": "assistant"} if said.text else {"role": "assistant"}
        if said.call is not None:
            arguments = json.dumps(said.call.arguments, ensure_ascii=False)
            function = {"arguments": arguments, "name": said.call.name}
            echoed["tool_calls"] = [{"function": function, "id": call_id, "type": "function"}]
        return {**echoed, "provider_specific_fields": {"refusal": None}}

    def returned(self, returned: ToolResult) -> Json:
        text = json.dumps({"returncode": 0, "output": returned.output}, indent=2)
        return {"content": text, "tool_call_id": returned.call_id, "role": "tool"}


def _parameters(tool: Json) -> Json:
    return {"name": tool["name"], "description": tool["description"], "parameters": tool["schema"]}


# --- Messages --------------------------------------------------------------------------------------------------------

_EPHEMERAL: Json = {"cache_control": {"type": "ephemeral"}}


class _MessagesClient(AgentClient):
    api: Api = "messages"
    target = b"/v1/messages"

    def said(self, said: ModelOutput) -> tuple[Any, list[Json], str]:
        call_id = f"toolu_{self.writer.hexadecimal(22)}"
        blocks: list[Json] = [{"type": "thinking", "thinking": said.thought, "signature": said.sealed}]
        if said.text:
            blocks.append({"type": "text", "text": said.text})
        if said.call is not None:
            blocks.append({"type": "tool_use", "id": call_id, "name": said.call.name, "input": said.call.arguments})
        return blocks, [{"role": "assistant", "content": blocks}], call_id

    def returned(self, returned: ToolResult) -> Json:
        block = {"tool_use_id": returned.call_id, "type": "tool_result", "content": returned.output, "is_error": False}
        return {"role": "user", "content": [block]}

    def marked(self, messages: list[Json]) -> list[Json]:
        """Return the messages with the cache marker on the newest one; it moves in every turn."""
        newest = messages[-1]
        content = newest["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        blocks[-1] = {**blocks[-1], **_EPHEMERAL}
        return [*messages[:-1], {**newest, "content": blocks}]


class _ClaudeCode(_MessagesClient):
    """Claude Code: 36 KB of tools, a system prompt in blocks, reminders; content is a list only while it is marked."""

    target = b"/v1/messages?beta=true"

    def __init__(self, agent: ProseWriter, writer: ProseWriter) -> None:
        super().__init__(agent, writer)
        self._tools = [_input(tool) for tool in make_tools(agent, 14, 35_000)]
        self._system = [{"type": "text", "text": agent.prompt(size)} for size in (120, 1500, 5500)]
        self._system[1] |= _EPHEMERAL
        self._system[2] |= _EPHEMERAL
        self._user = f"user_{writer.hexadecimal(64)}_account__session_{self.session}"

    def head(self) -> Sequence[tuple[str, str]]:
        return (
            ("Accept", "application/json"),
            ("X-Claude-Code-Session-Id", self.session),
            *_STAINLESS,
            ("X-Stainless-Package-Version", "0.94.0"),
            ("X-Stainless-Timeout", "600"),
            ("anthropic-dangerous-direct-browser-access", "true"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27"),
            ("x-app", "cli"),
            ("User-Agent", "claude-cli/2.1.328 (external, cli)"),
            ("x-api-key", self.key),
            ("content-type", "application/json"),
            ("Accept-Encoding", "gzip, deflate, br, zstd"),
        )

    def begin(self) -> list[Json]:
        reminder = f"<system-reminder>\n{self.agent.prompt(8_700)}\n</system-reminder>"
        return [{"role": "system", "content": reminder}, {"role": "user", "content": self.task}]

    def body(self, items: list[Json]) -> Json:
        return {
            "model": "claude-fable-5",
            "messages": self.marked(items),
            "system": self._system,
            "tools": self._tools,
            "metadata": {"user_id": self._user},
            "max_tokens": 64000,
            "thinking": {"type": "adaptive"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "stream": True,
        }


class _Pi(_MessagesClient):
    """pi: the smallest prompt; it marks its tools and system prompt too."""

    def __init__(self, agent: ProseWriter, writer: ProseWriter) -> None:
        super().__init__(agent, writer)
        made = [_input(tool, {"eager_input_streaming": True}) for tool in make_tools(agent, 4, 2700)]
        self._tools = [*made[:-1], {**made[-1], **_EPHEMERAL}]
        self._system = [{"type": "text", "text": agent.prompt(2_270), **_EPHEMERAL}]

    def head(self) -> Sequence[tuple[str, str]]:
        return (
            ("connection", "keep-alive"),
            ("User-Agent", "Anthropic/JS 0.91.1"),
            *_STAINLESS,
            ("X-Stainless-Package-Version", "0.91.1"),
            ("X-Stainless-Timeout", "600"),
            ("anthropic-version", "2023-06-01"),
            ("x-api-key", self.key),
            ("accept", "application/json"),
            ("anthropic-dangerous-direct-browser-access", "true"),
            ("anthropic-beta", "interleaved-thinking-2025-05-14"),
            ("content-type", "application/json"),
            *_FETCH,
        )

    def begin(self) -> list[Json]:
        return [{"role": "user", "content": [{"type": "text", "text": self.task}]}]

    def body(self, items: list[Json]) -> Json:
        start: Json = {"model": "claude-fable-5", "messages": self.marked(items), "max_tokens": 8192, "stream": True}
        thinking = {"type": "enabled", "budget_tokens": 7168, "display": "summarized"}
        return {**start, "system": self._system, "tools": self._tools, "thinking": thinking}


def _input(tool: Json, more: Json | None = None) -> Json:
    described = {"name": tool["name"], "description": tool["description"]}
    return {**described, **(more or {}), "input_schema": tool["schema"]}


# --- Gemini ----------------------------------------------------------------------------------------------------------


class _GeminiCli(AgentClient):
    """gemini-cli: contents with parts, signatures on function calls, the key in a head line."""

    api: Api = "gemini"
    target = b"/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"

    def __init__(self, agent: ProseWriter, writer: ProseWriter) -> None:
        super().__init__(agent, writer)
        declared = make_tools(agent, 14, 24_000)
        kept = [
            {"name": tool["name"], "description": tool["description"], "parametersJsonSchema": tool["schema"]}
            for tool in declared
        ]
        self._tools = [{"functionDeclarations": kept}]
        self._system = {"parts": [{"text": agent.prompt(21_500)}], "role": "user"}

    def head(self) -> Sequence[tuple[str, str]]:
        return (
            ("Content-Type", "application/json"),
            ("User-Agent", "GeminiCLI/0.61.0/gemini-2.5-pro (linux; x64) google-api-nodejs-client/9.15.1"),
            ("x-goog-api-client", "google-genai-sdk/1.30.0 gl-node/v20.20.2"),
            ("x-goog-api-key", self.key),
            ("connection", "keep-alive"),
            ("accept", "*/*"),
            *_FETCH,
        )

    def begin(self) -> list[Json]:
        context = [{"text": self.agent.prompt(1200)}]
        return [{"role": "user", "parts": context}, {"role": "user", "parts": [{"text": self.task}]}]

    def body(self, items: list[Json]) -> Json:
        thinking = {"includeThoughts": True, "thinkingBudget": 8192}
        settings = {"temperature": 1, "topP": 0.95, "topK": 64, "thinkingConfig": thinking}
        start: Json = {"contents": items, "systemInstruction": self._system, "tools": self._tools}
        return {**start, "generationConfig": settings}

    def said(self, said: ModelOutput) -> tuple[Any, list[Json], str]:
        call_id = f"{said.call.name if said.call else ''}-{self.writer.random.randint(10**12, 10**13)}"
        parts: list[Json] = [{"text": said.text}] if said.text else []
        if said.call is not None:
            function = {"name": said.call.name, "args": said.call.arguments}
            parts.append({"functionCall": function, "thoughtSignature": said.sealed})
        return parts, [{"role": "model", "parts": parts}], call_id

    def returned(self, returned: ToolResult) -> Json:
        response = {"id": returned.call_id, "name": returned.name, "response": {"output": returned.output}}
        return {"role": "user", "parts": [{"functionResponse": response}]}
