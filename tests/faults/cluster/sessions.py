"""Sessions that use the nodes as clients do: each in one way, and each sure of what it was told, in the ledger.

A session is one client. It asks for one thing after the other, each through the balancer, until it is stopped, and
learns of no fault but by what it is told. Not here: what is allowed (`ledger`), how a request goes (`requests`), and
agents behind a sidecar (`agents`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType

from segue.testing.protocol_checker import Json
from tests.faults.clients import output_text
from tests.faults.cluster.ledger import Ledger, LedgerConversation, LedgerTurn
from tests.faults.cluster.message_threads import ThreadClient
from tests.faults.cluster.nodes import TENANTS, Cluster, key_of
from tests.faults.cluster.repetition import repeated
from tests.faults.cluster.requests import Client, Told, client_of

#: How often a request with a key is repeated, and how long its client waits before it does: a lease is to end.
_REPEATS = 12
_PAUSE_S = 0.25
#: How often a turn that goes on apart is looked at: it ends soon, or with the lease of its node.
_LOOKS = 120
#: Turns that a chain has at most, and from how many of its own turns a session chooses what to continue.
_DEEPEST = 24
_RECENT = 6
#: What nobody may be told who goes on from a message that is kept: threads are in the store, and may fork.
_NEVER_OF_THREADS = frozenset({"thread_not_found", "thread_already_continued", "thread_fingerprint_mismatch"})


class ClusterSession:
    """One client of a tenant. `do_something` is what it does again and again."""

    def __init__(self, cluster: Cluster, tenant: str, client: Client, name: str, seed: int) -> None:
        self.cluster = cluster
        self.ledger: Ledger = cluster.ledger
        self.tenant = tenant
        self.client = client
        self.name = name
        self.random = random.Random(f"{seed} {name}")
        self.turns: list[LedgerTurn] = []
        self._threads = ThreadClient(client.http)

    async def do_something(self) -> None:
        """Do one of the things that sessions do."""
        (deed,) = self.random.choices(tuple(_DEEDS), tuple(_DEEDS.values()))
        await deed(self)

    def choose_parent(self, share: float) -> LedgerTurn | None:
        """Return a turn to continue, in such a share of the cases, and if there is one."""
        known = [turn for turn in self.turns if turn.presence == "kept" and len(turn.after) < 2 * _DEEPEST][-_RECENT:]
        return self.random.choice(known) if known and self.random.random() < share else None

    def begin(self) -> tuple[LedgerTurn, Json]:
        """Begin a turn: of a new chain, at the end of one, or as a branch of one."""
        parent = self.choose_parent(0.9)
        turn = self.ledger.begin(self.name, self.tenant, parent)
        body: Json = {"model": "m", "input": turn.marker}
        if parent is not None:
            body["previous_response_id"] = parent.response_id
        return turn, body

    def settle(self, turn: LedgerTurn, told: Told) -> None:
        """Note what a client was told of a turn."""
        if told.response_id is not None:
            self.ledger.name(turn, told.response_id)
        if told.how == "completed":
            assert told.response_id is not None
            self.ledger.acknowledge(turn, told.response_id, told.text)
            if turn.conversation is None and turn not in self.turns:
                self.turns.append(turn)
        elif told.how == "refused" and not told.may_have_run:
            self.ledger.refuse(turn, told.code)

    async def rest_after(self, turn: LedgerTurn, told: Told) -> bool:
        """Leave a turn that is never sent again; wait if it went badly. Return whether it went well."""
        self.ledger.lose(turn)
        if told.how != "completed":
            await self.pause()
        return told.how == "completed"

    async def pause(self) -> None:
        """Wait before a repeat."""
        await asyncio.sleep(_PAUSE_S)

    # --- plain turns -------------------------------------------------------------------------------------------------

    async def post_once(self) -> None:
        """Run a turn over HTTP, in one piece or as events, and never send it again."""
        turn, body = self.begin()
        ask = self.random.choice((self.client.post, self.client.stream))
        told = await ask(body)
        self.settle(turn, told)
        await self.rest_after(turn, told)

    async def use_socket(self) -> None:
        """Run some turns on one WebSocket."""
        async with self.client.socket() as socket:
            for _ in range(self.random.randint(1, 6)):
                turn, body = self.begin()
                told = await socket.turn(body)
                self.settle(turn, told)
                if not await self.rest_after(turn, told):
                    return

    # --- turns with a key --------------------------------------------------------------------------------------------

    async def repeat_until_told(self) -> None:
        """Run a turn with a key, and send it again, at whatever node, until its outcome is told."""
        epoch = await self.epoch()
        if epoch is None:
            return
        turn, body = self.begin()
        body |= {"segue": {"idempotency_key": turn.marker, "epoch": epoch}}
        repeat_all = self.random.random() < 0.2
        for number in range(_REPEATS):
            if number:
                self.ledger.send_again(turn)
            told = await self._ask_with_key(body)
            self.settle(turn, told)
            if told.how in {"completed", "failed"} or told.may_have_run or told.code == "epoch_changed":
                if not repeat_all:
                    break
                repeat_all = False
            else:
                await self.pause()
        self.ledger.lose(turn)

    async def _ask_with_key(self, body: Json) -> Told:
        """Ask once; a stream that is lost may be resumed instead of asked for again."""
        if self.random.random() < 0.4:
            return await self.client.post(body)
        told = await self.client.stream(body)
        for _ in range(3):
            if told.how != "lost" or told.response_id is None or self.random.random() < 0.5:
                break
            await self.pause()
            await self.client.resume(told)
        if told.how == "refused" and told.last >= 0:
            told.how = "lost"  # its events are not there, which says nothing of the turn
        return told

    async def epoch(self) -> str | None:
        """Return the epoch that a node tells."""
        answer = await self.client.call("GET", "/segue/capabilities")
        return None if answer is None or answer[0] != 200 else str(answer[1]["epoch"])

    # --- turns that go on apart --------------------------------------------------------------------------------------

    async def run_apart(self) -> None:
        """Begin a turn in the background; look at it, follow it or cancel it at other nodes, to its end."""
        losses = self.cluster.data_losses
        turn, body = self.begin()
        told = await self.client.post({**body, "background": True})
        self.settle(turn, told)
        if told.how != "begun":
            await self.rest_after(turn, told)
            return
        follows = self.random.random() < 0.5
        if self.random.random() < 0.2:
            await self.client.call("POST", f"/v1/responses/{told.response_id}/cancel")
        found = None
        for look in range(_LOOKS):
            if follows and look % 8 == 0:
                told = Told(response_id=told.response_id)
                await self.client.resume(told)
                if told.how in {"completed", "failed"}:
                    self.settle(turn, told)
            found = await self.client.call("GET", f"/v1/responses/{turn.response_id}")
            if found is not None and self._is_over(turn, *found, losses):
                return
            await self.pause()
        self.ledger.fault(f"{turn.marker} was accepted and has not ended: {found}")

    def _is_over(self, turn: LedgerTurn, status: int, found: Json, losses: int) -> bool:
        """Look at a turn that goes on apart; return whether it has ended. It is lost only with all data of Redis."""
        self.ledger.lose(turn)
        if status == 404:
            if losses == self.cluster.data_losses:
                self.ledger.fault(f"{turn.marker} was accepted as {turn.response_id} and is not there")
            return True
        if status != 200 or found["status"] in {"queued", "in_progress"}:
            return False
        assert turn.response_id is not None
        if found["status"] == "completed":
            self.settle(turn, Told(how="completed", response_id=turn.response_id, text=output_text(found)))
        elif turn.outcome == "acknowledged":
            self.ledger.fault(f"{turn.marker} was completed and is {found['status']}")
        elif found["status"] == "failed" and found["error"]["code"] not in {"segue_outcome_unknown", "store_error"}:
            self.ledger.fault(f"{turn.marker} has failed with {found['error']}")
        return True

    # --- message threads ---------------------------------------------------------------------------------------------

    async def use_thread(self) -> None:
        """Run some turns of a message thread, which may go on from a turn of any kind; some send all again."""
        parent = self.choose_parent(0.3)
        for _ in range(self.random.randint(1, 5)):
            turn = self.ledger.begin(self.name, self.tenant, parent)
            stream = self.random.random() < 0.5
            if parent is None or self.random.random() < 0.2:
                texts = () if parent is None else parent.after
                told = await self._threads.begin([*texts, turn.marker], stream=stream)
            else:
                assert parent.response_id is not None, "it was acknowledged"
                told = await self._threads.go_on(parent.response_id, turn.marker, stream=stream)
            self.settle(turn, told)
            if told.code in _NEVER_OF_THREADS:
                self.ledger.fault(f"{turn.marker} goes on from {parent}, which is kept, and is told {told}")
            if not await self.rest_after(turn, told):
                return
            parent = turn

    # --- what was made is looked at, and deleted ---------------------------------------------------------------------

    async def look_back(self) -> None:
        """Read a response that was acknowledged or deleted, and what was before it."""
        settled = [turn for turn in self.turns if turn.presence != "perhaps"]
        if not settled:
            return
        turn = self.random.choice(settled)
        answer = await self.client.call("GET", f"/v1/responses/{turn.response_id}/input_items?order=asc&limit=100")
        if answer is None or answer[0] >= 500:
            return
        status, page = answer
        if (status == 404) is not (turn.presence == "deleted"):
            self.ledger.fault(f"{turn.marker} is {turn.presence}, and a look at it is answered with {status}")
        elif status == 200:
            texts = [text_of_item(item) for item in page["data"]]
            self.ledger.compare(turn, texts[:-1], "a look shows")

    async def delete_one(self) -> None:
        """Delete a response; nobody shows or continues it once that is confirmed."""
        kept = [turn for turn in self.turns if turn.presence == "kept"]
        if not kept:
            return
        turn = self.random.choice(kept)
        turn.presence = "perhaps"
        for _ in range(_REPEATS):
            answer = await self.client.call("DELETE", f"/v1/responses/{turn.response_id}")
            if answer is not None and answer[0] in {200, 404}:
                turn.presence = "deleted"
                break
            await self.pause()
        else:
            return
        told = await self.client.post({"model": "m", "input": "of nobody", "previous_response_id": turn.response_id})
        if told.how not in {"refused", "lost"} or (told.status == 400 and told.code != "previous_response_not_found"):
            self.ledger.fault(f"{turn.marker} was deleted, and continuing it is answered with {told}")

    # --- conversations -----------------------------------------------------------------------------------------------

    async def converse(self) -> None:
        """Run some turns of one conversation, and look at its items."""
        answer = await self.client.call("POST", "/v1/conversations", {})
        if answer is None or answer[0] != 200:
            await self.pause()
            return
        talk = self.ledger.begin_conversation(self.tenant, answer[1]["id"])
        for _ in range(self.random.randint(2, 10)):
            turn = self.ledger.begin(self.name, self.tenant, talk=talk)
            told = await self.client.post({"model": "m", "input": turn.marker, "conversation": talk.id})
            self.settle(turn, told)
            await self.rest_after(turn, told)
        await check_conversation(self.client, self.ledger, talk)


async def check_conversation(client: Client, ledger: Ledger, talk: LedgerConversation) -> bool:
    """Compare the items of a conversation with its turns; return whether they could be read."""
    answer = await client.call("GET", f"/v1/conversations/{talk.id}/items?order=asc&limit=100")
    if answer is None or answer[0] >= 500:
        return False
    texts = [text_of_item(item) for item in answer[1].get("data", ())]
    if answer[0] != 200 or not talk.allows(texts):
        told = [(turn.marker, turn.outcome) for turn in talk.turns]
        ledger.fault(f"the conversation {talk.id} of {told} has {answer[0]} {texts}")
    return True


def text_of_item(item: Json) -> str:
    """Return what an item says."""
    return "".join(part["text"] for part in item["content"])


#: What sessions do, and how often in comparison.
_DEEDS: Mapping[Callable[[ClusterSession], Awaitable[None]], int] = MappingProxyType(
    {
        ClusterSession.post_once: 4,
        ClusterSession.use_socket: 2,
        ClusterSession.repeat_until_told: 4,
        ClusterSession.run_apart: 2,
        ClusterSession.look_back: 2,
        ClusterSession.delete_one: 1,
        ClusterSession.converse: 1,
        ClusterSession.use_thread: 3,
    }
)


@asynccontextmanager
async def sessions_of(cluster: Cluster, seed: int, *, each: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run so many sessions of each tenant around a block; at its end each finishes what it does."""
    async with AsyncExitStack() as stack:
        sessions = []
        for tenant in TENANTS:
            client = await stack.enter_async_context(client_of(cluster.balancer.url, key_of(tenant)))
            sessions += [ClusterSession(cluster, tenant, client, f"s{number}", seed) for number in range(each)]
        yield await stack.enter_async_context(repeated(session.do_something for session in sessions))
