"""What must be true once nothing is disturbed any more: everything acknowledged is there, once, and nothing else is.

Not here: what is allowed for each turn (`ledger`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from segue.testing.protocol_checker import Json
from tests.faults.cluster.nodes import TENANTS, Cluster, key_of
from tests.faults.cluster.requests import Client, client_of
from tests.faults.cluster.sessions import check_conversation, text_of_item

#: So many requests are on their way at once.
_AT_ONCE = 16


async def check_all(cluster: Cluster) -> None:
    """Compare what each node shows with the ledger; what contradicts it is noted there."""
    for tenant in TENANTS:
        listed = []
        for node in cluster.nodes:
            async with client_of(node.url, key_of(tenant)) as client:
                listed.append(await _list_responses(client))
        if any(other != listed[0] for other in listed):
            cluster.ledger.fault(f"the nodes list different responses of {tenant}")
        async with client_of(cluster.balancer.url, key_of(tenant)) as client:
            await _check_tenant(cluster, tenant, client, listed[0])


async def _check_tenant(cluster: Cluster, tenant: str, client: Client, listed: set[str]) -> None:
    ledger, places = cluster.ledger, asyncio.Semaphore(_AT_ONCE)

    async def check(response_id: str) -> None:
        async with places:
            ledger.list_response(tenant, response_id, await _history(client, response_id))

    await asyncio.gather(*(check(response_id) for response_id in sorted(listed)))
    for turn in ledger.missing(listed):
        if turn.tenant == tenant:
            ledger.fault(f"{turn.marker} was acknowledged as {turn.response_id}, and is not there")
    for talk in ledger.conversations:
        if talk.tenant == tenant and not await check_conversation(client, ledger, talk):
            ledger.fault(f"the conversation {talk.id} cannot be read")


async def _list_responses(client: Client) -> set[str]:
    """Return the ids of all responses of a tenant."""
    found: set[str] = set()
    async for page in _pages(client, "/v1/responses?limit=100"):
        found |= {response["id"] for response in page["data"]}
    return found


async def _history(client: Client, response_id: str) -> list[str]:
    """Return what was said before a response, and in it by the user."""
    texts: list[str] = []
    async for page in _pages(client, f"/v1/responses/{response_id}/input_items?order=asc&limit=100"):
        texts += [text_of_item(item) for item in page["data"]]
    return texts


async def _pages(client: Client, path: str) -> AsyncIterator[Json]:
    page: Json = {"has_more": True, "last_id": None}
    while page["has_more"]:
        after = "" if page["last_id"] is None else f"&after={page['last_id']}"
        answer = await client.call("GET", path + after)
        assert answer is not None, "nothing is disturbed"
        assert answer[0] == 200, answer
        page = answer[1]
        yield page
