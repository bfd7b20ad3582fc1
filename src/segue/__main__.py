"""Entry point of `python -m segue`; the same as the `segue` command."""

from __future__ import annotations

from segue.cli.main import main

if __name__ == "__main__":
    main()
