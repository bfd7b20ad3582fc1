"""The commands of `segue config`: their options. Not here: what they do (`config`)."""

from __future__ import annotations

from cyclopts import App

from segue.cli.gateway_parameters import AsJson, UserConfigFile

config_commands = App(name="config", help="The settings of segue sidecar and segue run, and where they come from.")


@config_commands.command
def path(*, json: AsJson = False) -> int:
    """Print where your own configuration file is, whether it exists or not."""
    from segue.cli.config import run_config_path

    return run_config_path(as_json=json)


@config_commands.command
def show(*, config: UserConfigFile = None, json: AsJson = False) -> int:
    """Print each setting, and where its value came from: the file, a variable, or its default. No key is shown."""
    from segue.cli.config import run_config_show

    return run_config_show(config, as_json=json)
