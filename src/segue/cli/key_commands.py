"""The commands of `segue key`: their options. Not here: what they do (`key`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

key_commands = App(name="key", help="The API keys of the gateway, in its configuration file.")

_KeyFile = Annotated[
    Path | None,
    Parameter(name=["--config", "-c"], help="The gateway's TOML file; default: segue.toml in this folder."),
]
_AsJson = Annotated[bool, Parameter(help="Print JSON.", negative="")]


@key_commands.command
def new(
    name: Annotated[str, Parameter(help="Whose key it is; no other key has this name.")],
    /,
    *,
    tenant: Annotated[
        str | None, Parameter(help="The tenant whose responses it may see; default: one of its own, NAME.")
    ] = None,
    expires: Annotated[
        str | None, Parameter(help="When it stops working: 12h, 30d, 8w, or a date. Default: never.")
    ] = None,
    model: Annotated[
        tuple[str, ...], Parameter(help="A model that it may ask for, or a glob; repeat it for more. Default: all.")
    ] = (),
    route: Annotated[
        tuple[str, ...],
        Parameter(help="A route that its sidecars may use, like /anthropic; repeat it for more. Default: all."),
    ] = (),
    operator: Annotated[
        bool, Parameter(help="It may erase what other tenants have, and see the nodes.", negative="")
    ] = False,
    config: _KeyFile = None,
    json: _AsJson = False,
) -> int:
    """Make a key, and print it. The file gets its digest only, so you see the key only this time."""
    from segue.cli.key import run_key_new

    return run_key_new(
        name,
        tenant=tenant,
        expires=expires,
        models=model,
        routes=route,
        operator=operator,
        config=config,
        as_json=json,
    )


@key_commands.command(name="list")
def list_keys(*, config: _KeyFile = None, json: _AsJson = False) -> int:
    """List the keys: whose they are, and what for."""
    from segue.cli.key import run_key_list

    return run_key_list(config=config, as_json=json)


@key_commands.command
def revoke(name: Annotated[str, Parameter(help="The name of the key.")], /, *, config: _KeyFile = None) -> int:
    """Take a key out of the file."""
    from segue.cli.key import run_key_revoke

    return run_key_revoke(name, config=config)
