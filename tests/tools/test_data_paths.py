"""A path lists what a request passes through, in order, and which calls go against the imports."""

from __future__ import annotations

from tools.data_paths import _climbs, record, tunnelled_request, websocket_turn

IMPORTS = {
    "top": frozenset({"middle"}),
    "middle": frozenset({"bottom"}),
    "bottom": frozenset[str](),
    "beside": frozenset({"bottom"}),
}


def test_a_climb_is_a_call_against_the_direction_of_imports() -> None:
    assert _climbs(IMPORTS, "bottom", "top")
    assert not _climbs(IMPORTS, "top", "bottom")
    assert not _climbs(IMPORTS, "beside", "middle"), "neither imports the other"


async def test_a_websocket_turn_comes_in_at_an_endpoint_and_goes_out_to_a_model() -> None:
    path = await record("a turn", websocket_turn)
    order = [path.files.index(f"segue.{name}") for name in ("protocol.session", "history.cache", "upstreams.scripted")]
    assert order == sorted(order)
    assert not any(name.startswith(("segue.sidecar", "segue.engine")) for name in path.files)
    assert path.climbs == ()


async def test_a_tunnelled_request_passes_both_ends_and_leaves_as_bytes() -> None:
    path = await record("a request", tunnelled_request)
    names = ("sidecar.listener", "tunnel.client", "tunnel.server", "egress.client")
    order = [path.files.index(f"segue.{name}") for name in names]
    assert order == sorted(order)
    assert not any(name.startswith(("segue.protocol.session", "segue.dialects")) for name in path.files)
