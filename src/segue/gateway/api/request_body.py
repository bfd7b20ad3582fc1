"""Reads the body of a request, as long as it goes on coming.

Not here: how long a head may take (`connections`), and what a body says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

from aiohttp import web

from segue.gateway.api.request_keys import COUNTED, HELD
from segue.gateway.principal import Principal
from segue.gateway.request_memory import HeldRequest, RequestMemory
from segue.gateway.services import Services
from segue.gateway.tunnel.uploads import Uploads
from segue.protocol.problems import Problem, Refused
from segue.upstreams.bulk_pace import BulkPace
from segue.upstreams.bulk_turns import BulkTurns

#: No larger piece is read at once, though more has come: the kernel clears new memory, which takes longer than to copy.
_PIECE_BYTES = 128 * 1024
#: A piece of this size is one of a large body. A tenant's large bodies are read at this pace, which takes a sixth of
#: the event loop; what is within the burst is read as it comes.
_LARGE_PIECE_BYTES = 64 * 1024
_BYTES_PER_S = 100e6
_BURST_S = 0.01
#: What has to come within the limit of time: a body that drips is one that stalls.
PROGRESS_BYTES = 4096


class BodyReader:
    """Reads bodies. What has come counts in a budget that tenants share, until `memory` has room for a whole one."""

    def __init__(
        self, limit: int, *, stall_s: float, uploads: Uploads, memory: RequestMemory, turns: BulkTurns | None = None
    ) -> None:
        self._limit = limit
        self._stall_s = stall_s
        self._uploads = uploads
        self._memory = memory
        self._turns = BulkTurns(BulkPace(_BYTES_PER_S, _BURST_S)) if turns is None else turns

    async def read(self, request: web.Request, tenant: str) -> bytes:
        """Return the body. Raises `HTTPRequestEntityTooLarge`, or `Refused` if it stalls."""
        if (request.content_length or 0) > self._limit:
            raise web.HTTPRequestEntityTooLarge(self._limit, request.content_length or 0)
        content = request.content
        if not content.is_eof() or content.total_bytes > self._limit:
            return await self._collect(request, tenant)
        body = content.read_nowait()  # most bodies come with their head
        held = request[HELD] = self._memory.hold(tenant, len(body))
        if not held.counted:
            await self._wait(held, _BodyUpload(tenant))
        return body

    async def _wait(self, held: HeldRequest, upload: _BodyUpload) -> None:
        """Wait for memory. Meanwhile the body counts as one that is being read."""
        try:
            self._uploads.hold(upload, held.size_bytes)
            await held.admitted()
        finally:
            self._uploads.release(upload)

    async def _collect(self, request: web.Request, tenant: str) -> bytes:
        """Read a body as it comes."""
        upload = _BodyUpload(tenant)
        try:
            body = await self._read_pieces(request, upload)
            held = request[HELD] = self._memory.hold(tenant, body.tell())
            await held.admitted()
        finally:
            self._uploads.release(upload)
        return body.getvalue()

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[asyncio.Timeout]:
        try:
            async with asyncio.timeout(self._stall_s) as timeout:
                yield timeout
        except TimeoutError:
            message = (
                f"The body stopped coming: less than {PROGRESS_BYTES} bytes in {self._stall_s:g} s. Send it again."
            )
            raise Refused(Problem("request_timeout", message)) from None

    async def _read_pieces(self, request: web.Request, upload: _BodyUpload) -> BytesIO:
        """Read the pieces into one buffer. It gives them away without a copy; to join a large body would take long."""
        body, due, clock = BytesIO(), PROGRESS_BYTES, asyncio.get_running_loop().time
        async with self._patience() as timeout:
            if (request.content_length or 0) >= _LARGE_PIECE_BYTES:  # what has come already may be large
                await self._turns.wait(upload.tenant, 0)
            while piece := await request.content.read(_PIECE_BYTES):
                body.write(piece)
                size = body.tell()
                if size > self._limit:
                    raise web.HTTPRequestEntityTooLarge(self._limit, size)
                has_room = self._hold(upload, len(piece))
                if not has_room:  # nothing is read meanwhile, so that TCP stalls the client: it is not at fault
                    timeout.reschedule(None)
                    await upload.room.wait()
                if len(piece) >= _LARGE_PIECE_BYTES:
                    await self._turns.wait(upload.tenant, len(piece))
                if size >= due or not has_room:
                    due = size + PROGRESS_BYTES
                    timeout.reschedule(clock() + self._stall_s)
        return body

    def _hold(self, upload: _BodyUpload, size: int) -> bool:
        upload.room.clear()
        self._uploads.hold(upload, size)
        return upload.room.is_set()


class RequestBodies:
    """The bodies of requests for turns: who is over a limit is refused before that, and what is read is counted."""

    def __init__(self, services: Services) -> None:
        server = services.server
        uploads = Uploads(server.uploads_bytes)
        self._reader = BodyReader(
            server.max_message_bytes, stall_s=server.body_timeout_s, uploads=uploads, memory=services.memory
        )
        self._quotas = services.rules.quotas
        self._clock = services.clock

    async def read(self, request: web.Request, principal: Principal) -> bytes:
        """Return the body of a request. Raises `Refused`, or what `BodyReader.read` raises."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            message = "Compressed request bodies are not accepted. Send the body as it is, without Content-Encoding."
            raise Refused(Problem("unsupported_content_encoding", message))
        if COUNTED not in request:
            self._quotas.check(principal, self._clock())  # before its body is read
        body = await self._reader.read(request, principal.tenant)
        self._quotas.note_upload(principal, len(body), self._clock())
        return body


class _BodyUpload:
    """A body that is being read."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.room = asyncio.Event()

    def credit(self) -> None:
        """Let the rest be read."""
        self.room.set()
