"""The checks behind the link: the gateway's routes, the providers that it reaches, and how fast the way is.

Pure. Not here: asking the gateway (`gateway_probe`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from segue.sidecar.diagnosis.check_results import DiagnosticResult, failed, passed, skipped, warning

_CURE = "Look at the gateway's machine: at its network, and at that target in the configuration."
_NOT_TOLD = "this gateway does not tell: it is of an older version, or a proxy passes only the tunnel on"


class SeenRoute(msgspec.Struct, frozen=True):
    """A route of the gateway: requests below `prefix` go to `target`, a server or `self`."""

    prefix: str
    target: str


class SeenProvider(msgspec.Struct, frozen=True):
    """A server that the gateway has tried to connect to."""

    target: str
    reachable: bool
    reason: str = ""
    time_s: float = 0.0


class GatewayAnswer(msgspec.Struct, frozen=True):
    """What a gateway answers to `GET /segue/diagnostics`. It is a peer's: the lists are bounded."""

    routes: Annotated[tuple[SeenRoute, ...], msgspec.Meta(max_length=200)]
    providers: Annotated[tuple[SeenProvider, ...], msgspec.Meta(max_length=200)]


class SeenSpeed(msgspec.Struct, frozen=True):
    """What transfers took: the least round trip, and bytes per second each way."""

    round_trip_s: float
    up_bytes_s: float
    down_bytes_s: float


class GatewayObservation(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe was told. A text in place of a result says why there is none; empty: the gateway does not tell."""

    answer: GatewayAnswer | str = ""
    speed: SeenSpeed | str = ""


def judge_gateway(seen: GatewayObservation, mounts: Sequence[str] = ()) -> tuple[DiagnosticResult, ...]:
    """Return the results of the checks. `mounts`: the paths below which the agent asks; empty: any."""
    return (*_routes_and_providers(seen.answer, mounts), _speed(seen.speed))


def not_tried(failing: str) -> tuple[DiagnosticResult, ...]:
    """Return the results of these checks if there is no link."""
    return tuple(skipped(name, f"not tried, since {failing} failed") for name in ("routes", "providers", "speed"))


def _routes_and_providers(answer: GatewayAnswer | str, mounts: Sequence[str]) -> Sequence[DiagnosticResult]:
    if isinstance(answer, str):
        if not answer:
            return skipped("routes", _NOT_TOLD), skipped("providers", _NOT_TOLD)
        cure = "Try again; if it stays so, the log of the gateway may say more."
        return failed("routes", answer, cure), skipped("providers", "not tried, since routes failed")
    routes = {route.prefix: route.target for route in answer.routes}
    missing = [mount for mount in mounts if mount not in routes]
    if missing:
        cure = f'Add a [[route]] with mount = "{missing[0]}" to the configuration of the gateway.'
        return failed("routes", f"no route begins with {missing[0]}", cure), skipped("providers", "no route to one")
    named = ", ".join(f"{prefix or '/'} to {_place(target)}" for prefix, target in sorted(routes.items()))
    asked = {routes[mount] for mount in mounts}
    return passed("routes", named), *_providers(answer.providers, asked, set(routes.values()))


def _cause(provider: SeenProvider) -> str:
    """Return the reason without what the line has said already."""
    return provider.reason.removeprefix(f"{provider.target.partition('://')[2]} cannot be reached: ")


def _place(target: str) -> str:
    return "the gateway's own API" if target == "self" else target.removeprefix("https://")


def _providers(seen: Sequence[SeenProvider], asked: set[str], routed: set[str]) -> Iterator[DiagnosticResult]:
    """Judge the providers; one that the agent has no use for may be away.

    `asked`: the targets that the agent asks for certain; `routed`: all that it may ask. The gateway's own API may ask
    any provider, or none.
    """
    known = bool(asked) and "self" not in asked
    served = "self" in (asked or routed) or any(one.reachable for one in seen)
    for one in seen:
        finding = f"the gateway does not reach {_place(one.target)}: {_cause(one)}"
        if one.reachable:
            yield passed("provider", f"the gateway reaches {_place(one.target)} in {1000 * one.time_s:.0f} ms")
        elif one.target in asked or not (known or served):
            yield failed("provider", finding, _CURE)
        elif known:
            yield warning("provider", f"{finding}; this agent does not need it")
        else:
            yield warning("provider", finding, f"If your agent needs it: {_CURE[0].lower()}{_CURE[1:]}")


def _speed(seen: SeenSpeed | str) -> DiagnosticResult:
    if isinstance(seen, str):
        if not seen:
            return skipped("speed", _NOT_TOLD)
        return failed("speed", seen, "The link breaks off or is very slow: try again from another network.")
    return passed(
        "speed",
        f"round trip {1000 * seen.round_trip_s:.0f} ms, up {_rate(seen.up_bytes_s)}, down {_rate(seen.down_bytes_s)}",
    )


def _rate(bytes_s: float) -> str:
    kilo, mega = 1e3, 1e6
    return f"{bytes_s / mega:.1f} MB/s" if bytes_s >= mega else f"{bytes_s / kilo:.1f} KB/s"
