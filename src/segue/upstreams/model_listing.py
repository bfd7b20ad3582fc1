"""The models that a provider lists itself, kept for a while, for `GET /v1/models`.

A list is asked for when a client wants it, and by one request at a time. A client waits for the very first one, for a
short time; later ones get what is known, while it is asked for again if it is old. A provider that does not answer
costs a client that short time once in a while, and otherwise nothing. Each client's own key has its own list, since
keys may be allowed different models; only a digest of the key is kept. Not here: the request (`http`), and which of the
names are listed (`router`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from segue.upstreams.interface import Secret

#: How long a list is kept, how long a failure, and how long a client waits for the first list, in seconds.
KEPT_S = 300.0
FAILURE_KEPT_S = 30.0
WAIT_S = 2.0
#: For how many keys a list is kept.
MAX_LISTS = 64

#: Asks a provider, with a client's own key if it has one; None if there is no list.
Fetch = Callable[[Secret | None], Awaitable[Sequence[str] | None]]


class _List:
    """The list for one key. `names` is empty as long as none has come."""

    __slots__ = ("expires_at", "names", "task")

    def __init__(self) -> None:
        self.names: Sequence[str] = ()
        self.expires_at: float | None = None  # None: it was never asked for
        self.task: asyncio.Task[None] | None = None


class ModelListing:
    """The lists of one provider, by the keys that it was asked with."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._lists: OrderedDict[bytes, _List] = OrderedDict()

    async def names(self, credential: Secret | None) -> Sequence[str]:
        """Return the names of the models, as far as they are known; never raises, and never takes long."""
        known = self._list_of(credential)
        now = asyncio.get_running_loop().time()
        if known.task is None and (known.expires_at is None or known.expires_at <= now):
            known.task = asyncio.create_task(self._refresh(known, credential))
        if known.task is not None and known.expires_at is None:
            await asyncio.wait({known.task}, timeout=WAIT_S)
        return known.names

    async def aclose(self) -> None:
        """Stop asking."""
        tasks = [known.task for known in self._lists.values() if known.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _list_of(self, credential: Secret | None) -> _List:
        key = b"" if credential is None else hashlib.sha256(credential.reveal().encode("utf-8", "replace")).digest()
        known = self._lists.setdefault(key, _List())
        self._lists.move_to_end(key)
        if len(self._lists) > MAX_LISTS:
            _, oldest = self._lists.popitem(last=False)
            if oldest.task is not None:
                oldest.task.cancel()
        return known

    async def _refresh(self, known: _List, credential: Secret | None) -> None:
        try:
            names = await self._fetch(credential)
        finally:
            known.task = None
        if names is not None:
            known.names = names
        known.expires_at = asyncio.get_running_loop().time() + (FAILURE_KEPT_S if names is None else KEPT_S)
