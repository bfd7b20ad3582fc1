"""Asks a gateway's own endpoints, for commands: `segue usage`, `export`, `import` and `forget`.

Not here: what is asked, and how the answer is shown.
"""

from __future__ import annotations

import sys
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from segue.config import ConfigError, agent_key, choose_file, load
from segue.connection_failures import connection_failure

#: How long an answer may take that is small.
TIMEOUT_S = 15.0


class _RefusalText(msgspec.Struct):
    message: str = ""


class _RefusalBody(msgspec.Struct):
    error: _RefusalText


class GatewayApi(msgspec.Struct, frozen=True):
    """The gateway at `origin`, asked with a key."""

    origin: str
    key: str | None

    async def ask(
        self, method: str, path: str, *, body: bytes | None = None, most_bytes: int, timeout_s: float = TIMEOUT_S
    ) -> bytes:
        """Return the answer's body.

        Raises:
            ConfigError: nothing answers, or the answer is not 200.
        """
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        url, timeout = self.origin + path, aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=True) as client,
                client.request(method, url, data=body, allow_redirects=False) as reply,
            ):
                answer = await _read(reply, most_bytes)
        except TimeoutError:
            raise ConfigError(f"no gateway answers at {url}: it takes too long") from None
        except aiohttp.ClientConnectionError as error:
            raise ConfigError(f"no gateway answers at {url}: {connection_failure(error)}") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise ConfigError(f"what answers at {url} is no segue gateway: {error}") from None
        if reply.status == HTTPStatus.UNAUTHORIZED:
            wrong = "wants a key, and none is set" if self.key is None else "does not know this key"
            raise ConfigError(f"the gateway at {url} {wrong}: set SEGUE_AGENT_KEY to one that it knows")
        if reply.status != HTTPStatus.OK:
            raise ConfigError(_refusal(url, reply.status, answer))
        return answer


def find_gateway(path: Path | None, *, base_url: str | None, key: str | None) -> GatewayApi:
    """Return the gateway that `segue agent` would use, and its key."""
    chosen = choose_file(path)
    for notice in chosen.notices:
        print(f"segue: {notice}", file=sys.stderr)
    given = {"base_url": base_url, "key": key}
    agent = load(chosen.path, relative_to=chosen.relative_to, agent=given).agent
    parts = urlsplit(agent.base_url)
    return GatewayApi(f"{parts.scheme}://{parts.netloc}", agent_key(agent))


async def _read(reply: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    pieces, size = [], 0
    async for piece in reply.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise ConfigError(f"the answer of {reply.url} is larger than {most_bytes} bytes")
    return b"".join(pieces)


def _refusal(url: str, status: int, answer: bytes) -> str:
    try:
        message = msgspec.json.decode(answer, type=_RefusalBody).error.message
    except msgspec.MsgspecError:
        message = ""
    if not message.isprintable() or not message:
        return f"what answers at {url} is no segue gateway, or an old one (status {status})"
    return f"the gateway refuses: {message}"
