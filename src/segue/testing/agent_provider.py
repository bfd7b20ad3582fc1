"""A model provider for real coding agents: it solves the agent's tasks with the tools that the agent offers.

    tasks = AgentTaskProvider()
    async with provided(tasks.answer, tasks.answer_message) as provider:
        ...  # an agent that is pointed at provider.url and told a task's TASK.md, then look at tasks.asked

It answers Chat Completions, Messages, Responses and Gemini. Where an agent sends only what is new, it keeps the rest as
a provider does: the conversation of each WebSocket of Responses, and the threads of Messages. `asked` counts equal
bodies, so that a request that came twice is seen. Not here: what real providers refuse
(`segue.testing.responses_server`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator

from segue.testing.offered_tools import AgentTools
from segue.testing.provider import ACCEPTED, Answer, ReceivedRequest, SocketAnswer, SocketMessage
from segue.testing.replies import Json
from segue.testing.task_provider import NO_TASK, TASK_APIS, TaskApi, answer_task, task_api
from segue.upstreams.scripted_tasks import MARKER, Answered, Called, Said, TaskAnswer, next_answer

#: What it says to a request that offers no tools with which the task can be solved, such as one for a title.
NO_TOOLS = "Work on a task"

_RESPONSES = TASK_APIS[b"responses"]


class AgentTaskProvider:
    """The scripts of the provider, and what it was asked. `folder`: where the agent works, if that is known."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        #: How often each request came in which the model was asked, by a digest of its body.
        self.asked: Counter[bytes] = Counter()
        self._conversations: dict[tuple[int, str], list[Json]] = {}
        self._threads: dict[str, list[Json]] = {}

    @property
    def requests(self) -> int:
        """How many requests came in which the model was asked."""
        return self.asked.total()

    @property
    def repeated(self) -> int:
        """How many of them had come before: each of them would have been paid twice."""
        return self.requests - len(self.asked)

    def answer(self, request: ReceivedRequest) -> Answer:
        """Answer an HTTP request: a script for `provided`."""
        if request.upgrades:
            return ACCEPTED
        if request.method == b"POST" and task_api(request.target) is not None:
            self._note(request.body or b"")
        return answer_task(request, lambda api, body: self._answer_body(api, body, api.identity_of(request.number)))

    def _answer_body(self, api: TaskApi, body: Json, identity: str) -> TaskAnswer | None:
        """Answer what may go on in a thread of Messages, as Claude Code begins one at Anthropic's own address."""
        thread = body.get("thread")
        if thread is None:
            return self._next(api, body)
        before = self._threads.get(thread.get("previous_message_id")) if thread["type"] == "continue" else []
        if before is None:
            return None
        messages = [*before, *body["messages"]]
        answer = self._next(api, {**body, "messages": messages})
        self._threads[identity] = [*messages, {"role": "assistant", "content": api.write(answer, identity)}]
        return answer

    def answer_message(self, message: SocketMessage) -> SocketAnswer:
        """Answer a message of a WebSocket: a script for `provided`."""
        try:
            create: Json = json.loads(message.data)
        except ValueError:
            return _refused("invalid_json", "The message is no JSON.")
        before = create.get("previous_response_id")
        history = self._conversations.get((message.request, before)) if before else []
        if history is None:
            return _refused("previous_response_not_found", f"Previous response with id '{before}' not found.")
        self._note(message.data)
        given = create["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        whole = {**create, "input": [*history, *items]}
        answer = TaskAnswer("") if create.get("generate") is False else self._next(_RESPONSES, whole)
        reply = _RESPONSES.reply(answer, create, message.number)
        response: Json = json.loads(reply.whole)
        self._conversations[message.request, response["id"]] = [*whole["input"], *response["output"]]
        return SocketAnswer(messages=reply.messages)

    def _next(self, api: TaskApi, body: Json) -> TaskAnswer:
        """Return the next answer of the task that the body is about."""
        tools = AgentTools(api.tools(body), self._folder)
        if not tools.enough:
            return TaskAnswer(NO_TOOLS)
        conversation = list(_about_the_task(api.read(body), tools))
        return next_answer(conversation, write=tools.write) or TaskAnswer(NO_TASK)

    def _note(self, body: bytes) -> None:
        self.asked[hashlib.sha256(body).digest()] += 1


def _about_the_task(
    entries: Iterable[Said | Called | Answered], tools: AgentTools
) -> Iterator[Said | Called | Answered]:
    """Leave out what the agent says for its user, and what it writes before each line of a file."""
    names: dict[str, str] = {}
    for entry in entries:
        match entry:
            case Said() if MARKER not in entry.text:
                pass
            case Called():
                names[entry.call_id] = entry.name
                yield entry
            case Answered():
                yield Answered(entry.call_id, tools.plain(names.get(entry.call_id, ""), entry.text))
            case _:
                yield entry


def _refused(code: str, message: str) -> SocketAnswer:
    error = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
    return SocketAnswer(messages=(json.dumps({"type": "error", "status": 400, "error": error}).encode(),))
