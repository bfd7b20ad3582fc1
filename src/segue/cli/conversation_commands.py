"""The commands that ask a running gateway about stored conversations and use, and their options.

Not here: their work (`transfer`, `usage`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from segue.cli import agent_parameters as parameters
from segue.cli.gateway_parameters import AsJson, UserConfigFile
from segue.cli.output_file import check_writable


def usage(
    *,
    base_url: parameters.BaseUrl = None,
    key: parameters.Key = None,
    config: UserConfigFile = None,
    json: AsJson = False,
) -> int:
    """Show what your key and its tenant have used of a gateway, and what is left of their limits."""
    from segue.cli.usage import run_usage

    return run_usage(config, base_url=base_url, key=key, as_json=json)


def export(
    response_id: Annotated[
        str, Parameter(help="The last response: resp_…, or msg_… of a thread; or a conversation: conv_…")
    ],
    /,
    *,
    as_: Annotated[
        Literal["responses", "chat", "messages"] | None,
        Parameter(
            name="--as",
            help="Write the request that made the last answer instead, as a curl command for an API without ids.",
        ),
    ] = None,
    output: Annotated[
        Path | None, Parameter(help="The file to write; default: standard output.", validator=check_writable)
    ] = None,
    base_url: parameters.BaseUrl = None,
    key: parameters.Key = None,
    config: UserConfigFile = None,
) -> int:
    """Write a stored conversation of a gateway to a file, which `segue import` gives to another one.

    The curl command of --as takes the address of the API from BASE_URL and the key from API_KEY.
    """
    from segue.cli.transfer import run_export

    return run_export(response_id, config=config, base_url=base_url, key=key, dialect=as_, output=output)


def forget(
    *,
    tenant: Annotated[str, Parameter(help="Whose responses and caches are erased.")],
    before: Annotated[
        str | None,
        Parameter(help="Only stored responses that are older: 12h, 30d, 8w, or a date. Default: everything."),
    ] = None,
    ids: Annotated[bool, Parameter(help="List the ids of the responses in the receipt.", negative="")] = False,
    output: Annotated[
        Path | None, Parameter(help="The file for the receipt; default: standard output.", validator=check_writable)
    ] = None,
    store: Annotated[
        str | None, Parameter(help="Erase in this store instead, sqlite:///FILE, which no running gateway uses.")
    ] = None,
    base_url: parameters.BaseUrl = None,
    key: parameters.Key = None,
    config: UserConfigFile = None,
) -> int:
    """Erase what a tenant has, in the store and the caches of a gateway, and print a receipt.

    A key may erase its own tenant. For another one it must be an operator's (`segue key new --operator`).
    """
    from segue.cli.forget import run_forget

    return run_forget(
        tenant,
        before=before,
        with_ids=ids,
        store=store,
        output=output,
        config=config,
        base_url=base_url,
        key=key,
    )


def import_conversation(
    file: Annotated[Path, Parameter(help="The file; - for standard input.", allow_leading_hyphen=True)],
    /,
    *,
    base_url: parameters.BaseUrl = None,
    key: parameters.Key = None,
    config: UserConfigFile = None,
) -> int:
    """Give a gateway a conversation that `segue export` wrote, and print the id to continue."""
    from segue.cli.transfer import run_import

    return run_import(file, config=config, base_url=base_url, key=key)
