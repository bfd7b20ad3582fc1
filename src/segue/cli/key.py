"""`segue key`: makes, lists and revokes the gateway's API keys in a configuration file.

A key is shown once, when it is made: the file gets its digest only. Not here: the tables (`segue.config.key_tables`).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.table import Table
from rich.text import Text

from segue.cli.output_file import writing
from segue.cli.serve import DEFAULT_FILE
from segue.config import ConfigError, KeyConfig, load
from segue.config.key_tables import add_key, remove_key
from segue.config.moments import parse_expiry
from segue.terminal import print_table, terminal

#: What every key begins with, so that scanners for leaked secrets know it.
PREFIX = "sk-segue-"
_KEY_BYTES = 32
_SHOWN_DIGITS = 12


def run_key_new(
    name: str,
    *,
    tenant: str | None,
    expires: str | None,
    models: Sequence[str],
    routes: Sequence[str],
    operator: bool,
    config: Path | None,
    as_json: bool,
) -> int:
    """Add a key to the file, which is made if there is none, and print the key on stdout."""
    secret = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    everything = KeyConfig("", "", "")
    key = KeyConfig(
        name=name,
        tenant=tenant or name,
        sha256=hashlib.sha256(secret.encode()).hexdigest(),
        expires_at=None if expires is None else parse_expiry(expires, datetime.now(UTC)),
        models=list(models) or everything.models,
        routes=list(routes) or everything.routes,
        operator=operator,
    )
    file = config or DEFAULT_FILE
    _replace(file, add_key(_text(file) if file.exists() else "", key))
    if as_json:
        print(msgspec.json.encode({"key": secret, "file": str(file), **_shown(key)}).decode())
        return 0
    print(secret)
    _advise(f"the key of {name!r} is in {file}; you see it only this time")
    return 0


def run_key_list(*, config: Path | None, as_json: bool) -> int:
    """Print what the keys of the file are for."""
    file = _existing(config)
    keys = load(file, {}).key
    if as_json:
        print(msgspec.json.encode([_shown(key) for key in keys]).decode())
        return 0
    table = Table(box=None, pad_edge=False)
    for head in ("name", "tenant", "expires", "models", "routes", "sha256"):
        table.add_column(head, overflow="fold")
    for key in keys:
        lists = (", ".join(key.models), ", ".join(key.routes))
        digest = key.sha256[:_SHOWN_DIGITS] + "…"
        table.add_row(Text(key.name), Text(key.tenant), _expiry(key), *map(Text, (*lists, digest)))
    console = terminal()
    if keys:
        print_table(console, table)
    else:
        console.print(f"{file} has no keys: whoever reaches the port may use the gateway")
    return 0


def run_key_revoke(name: str, *, config: Path | None) -> int:
    """Take a key out of the file."""
    file = _existing(config)
    _replace(file, remove_key(_text(file), name))
    _advise(f"the key of {name!r} is not in {file} any more")
    return 0


def _shown(key: KeyConfig) -> dict[str, object]:
    return {name: getattr(key, name) for name in key.__struct_fields__}


def _expiry(key: KeyConfig) -> Text:
    if key.expires_at is None:
        return Text("never")
    moment = key.expires_at.astimezone(UTC).isoformat(timespec="minutes")
    return Text(moment) if key.expires_at > datetime.now(UTC) else Text(f"{moment} (over)", style="red")


def _advise(done: str) -> None:
    print(f"segue: {done}; a running gateway uses it once you reload it (kill -HUP)", file=sys.stderr)


def _existing(config: Path | None) -> Path:
    file = config or DEFAULT_FILE
    if not file.exists():
        raise ConfigError(f"there is no {file}: name the gateway's file with --config")
    return file


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None


def _replace(file: Path, text: str) -> None:
    """Replace the file by a text at once, if the result can be used; its owner and its mode stay."""
    before = file.stat() if file.exists() else None
    folder = file.resolve().parent
    with writing(file):
        made, path = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
        part = Path(path)
        try:
            with os.fdopen(made, "w", encoding="utf-8") as opened:
                if before:  # root adds a key to the file of the service's user, who must still be able to read it
                    os.fchown(made, before.st_uid, before.st_gid)
                    os.fchmod(made, before.st_mode & 0o777)
                opened.write(text)
                opened.flush()
                os.fsync(made)
            _check(part, file)
            part.replace(file.resolve())
        finally:
            part.unlink(missing_ok=True)


def _check(part: Path, file: Path) -> None:
    """Refuse what `segue serve` would refuse."""
    try:
        load(part, {})
    except ConfigError as error:
        raise ConfigError(f"{file} was not changed: {str(error).replace(str(part), str(file))}") from None
