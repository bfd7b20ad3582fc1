"""`[agent]`: which server and model `segue agent` works with. Not here: the agent itself (`segue.agent`)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[agent]`: what `segue agent` uses unless its options say otherwise."""

    base_url: Annotated[str, Meta(description="The API to talk to, as SDKs name it: it ends before `/responses`.")] = (
        "http://127.0.0.1:4747/v1"
    )
    model: Annotated[str | None, Meta(description="The model to ask.")] = None
    key: Annotated[
        str | None,
        Meta(description="The API key to send; for api.openai.com, `OPENAI_API_KEY` is read if this is not set."),
    ] = None
    proxy: Annotated[
        str | None,
        Meta(
            description=(
                "HTTP proxy on the way to an https:// server, http://[USER:PASSWORD@]HOST:PORT; empty for none. If it "
                "is not set, HTTPS_PROXY or else ALL_PROXY is used. Hosts in NO_PROXY are reached without it."
            )
        ),
    ] = None
