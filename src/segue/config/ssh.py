"""`[ssh]`: the gateway that others start on this machine with `--gateway ssh://THIS-MACHINE`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from segue.config.units import Positive


class SshConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[ssh]`: the gateway that is started on this machine when its user comes by ssh."""

    directory: Annotated[
        str, Meta(description="The folder for its socket, which must be yours alone; default: /tmp/segue-UID.")
    ] = ""
    idle_s: Annotated[
        Positive, Meta(description="It ends when no sidecar was connected and nothing was under way for so long.")
    ] = 1800.0
