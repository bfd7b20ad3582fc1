"""Generated text compresses like the real thing, and the same seed writes the same."""

from __future__ import annotations

import pytest

from segue.bench.workloads.prose import ProseWriter
from segue.testing.recorded_session import compressed


@pytest.mark.parametrize(
    ("what", "size", "least", "most"),
    [
        ("prompt", 5_400, 1.9, 2.4),
        ("prompt", 21_000, 2.3, 2.7),
        ("listing", 700, 1.9, 2.5),
        ("source", 2_400, 1.9, 2.8),
        ("log", 1_800, 2.5, 3.3),
        ("found", 860, 1.7, 2.3),
        ("patch", 1_200, 1.7, 2.3),
    ],
)
def test_text_compresses_like_that_of_real_agents(what: str, size: int, least: float, most: float) -> None:
    for seed in range(10):
        writer = ProseWriter(seed)
        write = {
            "prompt": writer.prompt,
            "listing": writer.listing,
            "source": writer.source,
            "log": writer.log,
            "found": writer.found,
            "patch": writer.patch,
        }[what]
        text = write(size)
        assert len(text) == size
        assert least < size / compressed(text.encode()) < most


def test_the_same_seed_writes_the_same() -> None:
    def write(seed: int) -> list[str]:
        writer = ProseWriter(seed)
        return [writer.prompt(500), writer.tool_output(900), writer.identifier(), writer.secret(64), writer.saying()]

    assert write(1) == write(1)
    assert write(1) != write(2)


def test_secrets_do_not_compress() -> None:
    secret = ProseWriter(1).secret(2000)
    assert len(secret) == 2000
    assert 2000 / compressed(secret.encode()) < 1.34
