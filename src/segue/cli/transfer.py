"""`segue export` and `segue import`: a stored conversation as a file, and back into a gateway.

Not here: what is in the file (`segue.history.conversation_file`), and what a gateway does with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

import msgspec

from segue.cli.gateway_api import GatewayApi, find_gateway
from segue.cli.loop import run
from segue.cli.output_file import writing
from segue.config import ConfigError, ProviderDialect

_PATH = "/segue/conversations"
_TIMEOUT_S = 300.0
#: The largest file that is read or written.
_MAX_FILE_BYTES = 1024 * 1024 * 1024
_MAX_REPORT_BYTES = 64 * 1024

#: Header lines that an API wants besides the key, and how it wants the key.
_HEADERS: dict[str, tuple[str, ...]] = {
    "chat": ("Authorization: Bearer $API_KEY",),
    "responses": ("Authorization: Bearer $API_KEY",),
    "messages": ("x-api-key: $API_KEY", "anthropic-version: 2023-06-01"),
}
_END = "SEGUE_REQUEST"


class _Written(msgspec.Struct):
    """A request as the gateway writes it."""

    path: str
    warnings: list[str]
    body: msgspec.Raw


class _ImportAnswer(msgspec.Struct):
    """What became of an import."""

    id: str
    turns: int
    imported: int


def run_export(
    response_id: str,
    *,
    config: Path | None,
    base_url: str | None,
    key: str | None,
    dialect: ProviderDialect | None,
    output: Path | None,
) -> int:
    """Write the conversation that ends in a response, as a file or as a curl command."""
    gateway = find_gateway(config, base_url=base_url, key=key)
    path = f"{_PATH}/{quote(response_id, safe='')}{'' if dialect is None else f'?as={dialect}'}"
    body = run(gateway.ask("GET", path, most_bytes=_MAX_FILE_BYTES, timeout_s=_TIMEOUT_S))
    text = body if dialect is None else _script(body, dialect)
    if output is None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return 0
    with writing(output), os.fdopen(_open_private(output), "wb") as opened:
        opened.write(text)
    return 0


def run_import(file: Path, *, config: Path | None, base_url: str | None, key: str | None) -> int:
    """Send a file to a gateway, and print the id to continue."""
    gateway = find_gateway(config, base_url=base_url, key=key)
    report = run(_import(gateway, _read(file)))
    print(report.id)
    print(f"segue: {report.imported} of {report.turns} turns were new", file=sys.stderr)
    return 0


async def _import(gateway: GatewayApi, body: bytes) -> _ImportAnswer:
    answer = await gateway.ask("POST", _PATH, body=body, most_bytes=_MAX_REPORT_BYTES, timeout_s=_TIMEOUT_S)
    try:
        return msgspec.json.decode(answer, type=_ImportAnswer)
    except msgspec.MsgspecError:
        raise ConfigError(f"what answers at {gateway.origin}{_PATH} is no segue gateway, or an old one") from None


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(_MAX_FILE_BYTES)
        with file.open("rb") as opened:
            return opened.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from None


def _open_private(file: Path) -> int:
    """Open a file to write; nobody else may read a new one."""
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _script(answer: bytes, dialect: ProviderDialect) -> bytes:
    """Return a shell script that sends the request with curl.

    No line of the body can be the end mark: in a JSON document, a line that is no JSON is within no text either.
    """
    try:
        written = msgspec.json.decode(answer, type=_Written)
    except msgspec.MsgspecError:
        raise ConfigError("the gateway's answer is no request: is it an old one?") from None
    notes = [f"# {''.join(letter for letter in warning if letter.isprintable())}" for warning in written.warnings]
    lines = [
        *notes,
        f'curl -sN "$BASE_URL{_plain(written.path)}" \\',
        "  -H 'Content-Type: application/json' \\",
        *(f'  -H "{line}" \\' for line in _HEADERS[dialect]),
        f"  --data-binary @- <<'{_END}'",
    ]
    return b"\n".join((*(line.encode() for line in lines), bytes(written.body), _END.encode(), b""))


def _plain(path: str) -> str:
    """Return a path that means nothing to a shell."""
    return quote(path, safe="/")
