"""The options of `segue serve`. Not here: its work (`serve`)."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from segue.cli.gateway_parameters import ConfigFile


def serve(
    *,
    config: ConfigFile = None,
    host: Annotated[str | None, Parameter(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, Parameter(help="Port; 0 picks a free one [default: 4747].")] = None,
    store: Annotated[
        str | None, Parameter(help="memory:, sqlite:///FILE or postgresql://HOST/NAME [default: sqlite:///segue.db].")
    ] = None,
    workers: Annotated[
        int | Literal["auto"] | None,
        Parameter(
            help="Processes that serve the ports; auto: one for each core. Several need a store and a live URL that "
            "they share [default: 1]."
        ),
    ] = None,
    log: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="How much to log on stderr.")] = "info",
) -> int:
    """Run the gateway: the Responses API over HTTP, SSE and WebSocket, with the history kept here.

    Prints `segue: listening on URL` when it is ready. On SIGTERM or Ctrl-C it lets running turns end; on the second one
    it stops at once.
    """
    from segue.cli.serve import run_serve
    from segue.cli.serve_options import ServeOptions

    file = None if config is None else str(config)
    return run_serve(ServeOptions(config=file, log=log, host=host, port=port, store=store, workers=workers))
