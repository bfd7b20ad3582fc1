"""Writes the tiny chat model that tests and benchmarks run where no trained one is: make_tiny_model.py FILE [--benched]

It needs no package beside this one and takes under a second. The model is described in `segue.testing.tiny_model`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from segue.testing.tiny_model import BENCH_SHAPE, TinyModelShape, write_tiny_model


def main(arguments: list[str]) -> int:
    """Write the file that is named."""
    benched = "--benched" in arguments
    names = [argument for argument in arguments if argument != "--benched"]
    if len(names) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(names[0])
    write_tiny_model(path, BENCH_SHAPE if benched else TinyModelShape())
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
