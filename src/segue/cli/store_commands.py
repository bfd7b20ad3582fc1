"""The commands of `segue store`: their options. Not here: what they do (`store_copy`)."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from segue.cli.gateway_parameters import AsJson

store_commands = App(name="store", help="The stores of gateways: where responses are kept.")


@store_commands.command
def copy(
    source: Annotated[str, Parameter(name="FROM", help="The URL of the store to copy: sqlite:///FILE, postgresql://…")],
    target: Annotated[str, Parameter(name="TO", help="The URL of the store to copy it to, which may be new.")],
    /,
    *,
    json: AsJson = False,
) -> int:
    """Copy a store into another one, of whatever kind, and compare counts and digests at the end.

    Stop the gateways that use them first. If it is broken off, start it again: what is there is not written twice.
    """
    from segue.cli.store_copy import run_store_copy

    return run_store_copy(source, target, as_json=json)
