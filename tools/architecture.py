"""Draws the packages of segue and what each imports, from the imports in the code: an SVG for the documentation.

A package stands just above those that it imports. An arrow is an import; one that other arrows imply is left out. Not
here: what travels along the arrows (`data_paths`), and which imports are allowed (the contracts in pyproject.toml).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from tools.structure import read_modules

ROOT = Path(__file__).resolve().parents[1]

_BOX_WIDTH, _BOX_HEIGHT, _BETWEEN, _GAP, _MARGIN = 214, 58, 26, 46, 16
_NAME_SIZE, _WORDS_SIZE = 15, 11.5

#: What each package is, in a few words. A package that is not here cannot be drawn.
_WORDS: Mapping[str, tuple[str, str]] = {
    "cli": ("reads arguments, calls the library,", "shows what comes back"),
    "bench": ("workloads, arms,", "meters, reports"),
    "agent": ("a small coding agent:", "its loop and its tools"),
    "testing": ("public test doubles", "and conformance suites"),
    "client": ("the client library: sessions", "that outlive connections"),
    "sidecar": ("takes agents' requests,", "sends what is new"),
    "gateway": ("takes requests of clients", "and sidecars, runs turns"),
    "engine": ("the local model: llama.cpp,", "KV cache, grammars"),
    "upstreams": ("clients of model servers:", "routing, admission, retries"),
    "stores": ("keep the records", "of stored responses"),
    "dialects": ("translate between the APIs", "of providers (pure)"),
    "history": ("chains of turns that", "share their prefixes (pure)"),
    "egress": ("one outbound connection,", "byte for byte"),
    "http_client": ("aiohttp's client,", "made safe"),
    "listening": ("how a server", "stops listening"),
    "packet_writer": ("sends the packets", "of a tunnel's end"),
    "network_changes": ("notices another", "network"),
    "peer_credentials": ("who is at the", "other end"),
    "config": ("one frozen object, from", "a file and the environment"),
    "protocol": ("the Responses API: items,", "events, sessions (pure)"),
    "tunnel": ("deltas, frames, both ends", "of the tunnel (pure)"),
    "http": ("heads, routes, origins,", "codings, events (pure)"),
    "byte_lru": ("a cache with", "a byte budget (pure)"),
    "extras": ("how to add", "what is missing"),
    "connection_failures": ("why there is", "no connection"),
    "terminal": ("what is printed,", "as it was written"),
}


def package_imports(root: Path = ROOT) -> dict[str, set[str]]:
    """Return which packages each package imports."""
    found: dict[str, set[str]] = {}
    for module in read_modules(root / "src").values():
        names = [name.split(".")[1] for name in (module.name, *module.imports) if name.count(".")]
        if names and module.name.count(".") and names[0] != "__main__":
            found.setdefault(names[0], set()).update(set(names[1:]) - {names[0]})
    return found


def reduced(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Leave out every import that the others imply."""

    def reach(name: str) -> set[str]:
        return {name}.union(*(reach(other) for other in imports.get(name, ())))

    return {
        name: {one for one in direct if not any(one in reach(other) for other in direct - {one})}
        for name, direct in imports.items()
    }


def rows_of(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Arrange packages in rows, the highest first: each just above what it imports, near the middle of that."""

    def level(name: str) -> int:
        return max((1 + level(other) for other in imports[name]), default=0)

    rows: list[list[str]] = []
    for number in range(max(map(level, imports)) + 1):
        places = {name: index - (len(row) - 1) / 2 for row in rows for index, name in enumerate(row)}

        def middle(name: str, places: Mapping[str, float] = places) -> tuple[float, str]:
            below = [places[other] for other in imports[name]]
            return sum(below) / max(1, len(below)), name

        rows.append(sorted((name for name in imports if level(name) == number), key=middle))
    return rows[::-1]


def draw(imports: Mapping[str, set[str]], words: Mapping[str, tuple[str, str]]) -> str:
    """Draw a box for each package and an arrow for each import that no other implies."""
    rows = rows_of(imports)
    width = 2 * _MARGIN + max(map(len, rows)) * (_BOX_WIDTH + _BETWEEN) - _BETWEEN
    height = 2 * _MARGIN + len(rows) * (_BOX_HEIGHT + _GAP) - _GAP
    places = dict(_places(rows, width))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        '<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">',
        '<path d="M0,0 L6,3 L0,6 z" fill="#5b7a99"/></marker></defs>',
        *_arrows(reduced(imports), places),
        *(line for name, place in places.items() for line in _box(name, words[name], place)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _places(rows: Sequence[Sequence[str]], width: float) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield each package with the middle of its upper edge."""
    for number, row in enumerate(rows):
        share = (width - 2 * _MARGIN) / len(row)
        for index, name in enumerate(row):
            yield name, (_MARGIN + share * (index + 0.5), _MARGIN + number * (_BOX_HEIGHT + _GAP))


def _arrows(imports: Mapping[str, set[str]], places: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    for name, (left, top) in places.items():
        for other in sorted(imports[name], key=places.__getitem__):
            end, under = places[other]
            start, bend = top + _BOX_HEIGHT, (under - top - _BOX_HEIGHT) / 2
            path = f"M{left:g},{start:g} C{left:g},{start + bend:g} {end:g},{under - bend:g} {end:g},{under - 2:g}"
            yield f'<path d="{path}" fill="none" stroke="#5b7a99" stroke-width="1.3" marker-end="url(#tip)"/>'


def _box(name: str, words: tuple[str, str], place: tuple[float, float]) -> Iterator[str]:
    middle, top = place
    yield (
        f'<rect x="{middle - _BOX_WIDTH / 2:g}" y="{top:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" '
        'fill="#eef3f8" stroke="#34495e"/>'
    )
    text = f'<text x="{middle:g}" text-anchor="middle" fill="#1f2d3a"'
    yield f'{text} y="{top + 19:g}" font-size="{_NAME_SIZE}" font-weight="bold">{escape(name)}</text>'
    for line, said in enumerate(words):
        yield f'{text} y="{top + 35 + 14 * line:g}" font-size="{_WORDS_SIZE}">{escape(said)}</text>'


def picture(root: Path = ROOT) -> str:
    """Draw the packages of a checkout."""
    return draw(package_imports(root), _WORDS)
