"""`segue forget`: erases what a tenant has, in a running gateway or in a store that no gateway uses.

Not here: what is erased, and what the receipt says (`segue.gateway.turns.erasure`).
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec

from segue.cli.gateway_api import GatewayApi, find_gateway
from segue.cli.loop import run
from segue.cli.output_file import writing
from segue.config import ConfigError
from segue.config.moments import parse_past
from segue.gateway.turns.erasure import ErasureReceipt, digest_ids, erase_stored
from segue.stores.interface import StoreError
from segue.stores.store_url import file_of, open_store

_PATH = "/segue/tenants"
#: A store with millions of responses takes its time.
_TIMEOUT_S = 3600.0
_MAX_RECEIPT_BYTES = 1024 * 1024 * 1024


def run_forget(
    tenant: str,
    *,
    before: str | None,
    with_ids: bool,
    store: str | None,
    output: Path | None,
    config: Path | None,
    base_url: str | None,
    key: str | None,
) -> int:
    """Erase what a tenant has, and write the receipt."""
    limit = None if before is None else parse_past(before, datetime.now(UTC)).timestamp()
    if store is None:
        gateway = find_gateway(config, base_url=base_url, key=key)
        receipt = run(_ask(gateway, tenant, limit, with_ids=with_ids))
    else:
        receipt = run(_erase(store, tenant, limit, with_ids=with_ids))
    if output is None:
        sys.stdout.write(f"{receipt.decode()}\n")
    else:
        with writing(output):
            output.write_bytes(receipt + b"\n")
    return 0


async def _ask(gateway: GatewayApi, tenant: str, before: float | None, *, with_ids: bool) -> bytes:
    query = {} if before is None else {"before": repr(before)}
    query |= {"ids": "true"} if with_ids else {}
    path = f"{_PATH}/{quote(tenant, safe='')}{f'?{urlencode(query)}' if query else ''}"
    return await gateway.ask("DELETE", path, most_bytes=_MAX_RECEIPT_BYTES, timeout_s=_TIMEOUT_S)


async def _erase(url: str, tenant: str, before: float | None, *, with_ids: bool) -> bytes:
    """Erase what a tenant has in a store. One in a file cannot be opened while a gateway uses it."""
    begun_at = time.time()
    try:
        file = file_of(url)
    except ValueError as error:
        raise ConfigError(f"--store: {error}") from None
    if url == "memory:" or (file is not None and not file.exists()):
        raise ConfigError(f"--store: there is no file {file}" if file else "--store: memory: is in a gateway alone")
    try:
        store = await open_store(url)
        try:
            erased = await erase_stored(store, tenant, before)
            left = await store.tenant_size(tenant)
        finally:
            await store.aclose()
    except StoreError as error:
        raise ConfigError(str(error)) from None
    receipt = ErasureReceipt(
        tenant=tenant,
        before=before,
        begun_at=begun_at,
        ended_at=time.time(),
        responses=len(erased.ids),
        conversations=erased.conversations,
        ids_sha256=digest_ids(erased.ids),
        ids=sorted(erased.ids) if with_ids else msgspec.UNSET,
        left=left,
    )
    return msgspec.json.encode(receipt)
