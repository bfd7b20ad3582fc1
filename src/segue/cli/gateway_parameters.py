"""The options that say which gateway a command uses, and how: the type of each, and what its help says.

Not here: what they mean (`segue.cli.sidecar`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

Gateways: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        name="--gateway",
        help="wss://HOST, ws://HOST:PORT or ssh://HOST; repeat it for more, in order of preference.",
        negative="",
        show_default=False,
    ),
]
GatewayKey: TypeAlias = Annotated[
    str | None,
    Parameter(help="Your API key for the gateway. Set SEGUE_SIDECAR_KEY instead, and your shell does not keep it."),
]

Direct: TypeAlias = Annotated[
    bool | None, Parameter(help="Go straight to the provider when no gateway can be reached.", negative="")
]
Install: TypeAlias = Annotated[
    str | None,
    Parameter(
        help="What uvx or pipx may fetch on a machine of ssh:// that has no segue: NAME==VERSION, or a wheel (its path "
        "there, or an https:// URL). Nothing is fetched that you have not named.",
    ),
]
InstallIndex: TypeAlias = Annotated[
    str | None,
    Parameter(help="The package index that NAME==VERSION comes from, instead of the public one."),
]
Access: TypeAlias = Annotated[
    Literal["user", "token", "anyone"] | None,
    Parameter(
        help="Who may use the sidecar: programs of your own user; whoever has the token of SEGUE_SIDECAR_TOKEN in the "
        "address; or anyone [default: user].",
    ),
]
CaFile: TypeAlias = Annotated[
    Path | None, Parameter(help="Certificates to verify gateways by [default: the system's].")
]
ClientCert: TypeAlias = Annotated[
    Path | None, Parameter(help="A certificate (PEM) to show to gateways that ask for one.")
]
ClientKey: TypeAlias = Annotated[Path | None, Parameter(help="The key (PEM) of that certificate.")]
Cache: TypeAlias = Annotated[
    bool | None,
    Parameter(
        help="Keep a few request bodies on disk, so that first requests are small after a start, too [default: yes]."
    ),
]
#: For commands that agents run under: their working folder may be somebody else's.
UserConfigFile: TypeAlias = Annotated[
    Path | None,
    Parameter(
        name=["--config", "-c"],
        help="TOML file; default: segue/segue.toml in your folder for settings (~/.config), if it exists. "
        "segue.toml of this folder is not read.",
    ),
]
AsJson: TypeAlias = Annotated[bool, Parameter(help="Print one JSON object.", negative="")]

ConfigFile = Annotated[
    Path | None, Parameter(name=["--config", "-c"], help="TOML file; default: segue.toml in this folder, if it exists.")
]
