"""What to do about an extra of segue that is missing, in words.

The words name no package of an index: segue is on none, and a package that has its name there is somebody else's. Not
here: noticing that it is missing.
"""

from __future__ import annotations


def how_to_add(extra: str) -> str:
    """Return how a person adds an extra to the segue that runs."""
    return (
        f"install segue with its extra {extra}, from where you have segue: '.[{extra}]' in a checkout, or "
        f"'./FILE.whl[{extra}]'"
    )
