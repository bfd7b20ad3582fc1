"""The options of `segue agent`, as `main` lists them: the type of each, and what its help says.

Not here: what they mean to a run (`agent`), which would take long to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

_AT_LEAST_ONE = Number(gte=1)

Task: TypeAlias = Annotated[
    str | None, Parameter(help="What is to be done [default: what TASK.md of the workspace says].")
]
Workspaces: TypeAlias = Annotated[
    tuple[Path, ...],
    Parameter(
        name="--workspace",
        help="The folder to work in; repeat it to work in several at the same time [default: this folder].",
        negative="",
        show_default=False,
    ),
]
Copies: TypeAlias = Annotated[
    int | None,
    Parameter(name="--parallel", help="Copy the workspace to DIR-1 … DIR-N, and work in all of them at the same time."),
]
BaseUrl: TypeAlias = Annotated[str | None, Parameter(help="The API, up to /v1 [default: http://127.0.0.1:4747/v1].")]
Model: TypeAlias = Annotated[
    str | None, Parameter(help="The model to ask; a built-in task needs none: scripted plays it.")
]
Key: TypeAlias = Annotated[
    str | None, Parameter(help="The API key. Set SEGUE_AGENT_KEY instead, and your shell does not keep it.")
]
Transport: TypeAlias = Annotated[
    Literal["auto", "http", "websocket"] | None, Parameter(help="How turns travel [default: auto].")
]
Store: TypeAlias = Annotated[bool | None, Parameter(help="Let the server store the responses [default: no].")]
History: TypeAlias = Annotated[
    Literal["auto", "id", "replay"] | None,
    Parameter(help="Name the last response, or send the history again [default: auto]."),
]
Yes: TypeAlias = Annotated[bool, Parameter(help="Run every command without asking.", negative="")]
Resume: TypeAlias = Annotated[bool, Parameter(help="Go on with the last run in this workspace.", negative="")]
TranscriptFile: TypeAlias = Annotated[
    Path | None, Parameter(help="Where the run is written down [default: in your folder for state].")
]
MaxTurns: TypeAlias = Annotated[
    int, Parameter(help="Turns after which a run ends, with status 3.", validator=_AT_LEAST_ONE)
]
MaxSeconds: TypeAlias = Annotated[
    int | None,
    Parameter(help="Seconds after which it ends, with status 4 [default: no limit].", validator=_AT_LEAST_ONE),
]
MaxTokens: TypeAlias = Annotated[
    int | None,
    Parameter(help="Tokens after which it ends, with status 5 [default: no limit].", validator=_AT_LEAST_ONE),
]
ListTasks: TypeAlias = Annotated[bool, Parameter(help="List the built-in tasks.", negative="")]
MakeTask: TypeAlias = Annotated[
    tuple[str, Path] | None, Parameter(help="Make the workspace of a built-in task: NAME DIR.", negative="")
]
CheckTask: TypeAlias = Annotated[Path | None, Parameter(help="Check the workspace of a built-in task.")]
