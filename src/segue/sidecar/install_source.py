"""What may be fetched on a machine to ssh to that has no segue: what its user has named, exactly, and nothing else.

A name alone never does. Whoever owns the name `segue` on a package index decides what runs there, as the user, between
an agent and its provider. So it is a requirement with an exact version, or a wheel; and an index replaces the public
one, which then cannot put in a package of the same name. Pure. Not here: the command that fetches it
(`segue.sidecar.ssh_command`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

_EXACT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?==[0-9A-Za-z.!+-]{1,64}")
#: A path that means the same from every folder of the other machine, and in which its shell quotes nothing.
_WHEEL_PATH = re.compile(r"(?:~/|/)[A-Za-z0-9._+/-]{1,400}\.whl")
_URL = r"https://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/[A-Za-z0-9._~%+/:=@,-]{0,400}"
_WHEEL_URL = re.compile(rf"{_URL}\.whl(?:#sha256=[0-9a-f]{{64}})?")
_INDEX_URL = re.compile(_URL)

_FORMS = (
    "NAME==VERSION, or a wheel: its path on that machine, from / or ~/ on, or its https:// URL (#sha256=… fixes its "
    "bytes)"
)


class InstallSource(msgspec.Struct, frozen=True):
    """What to fetch. Every text is one word of a shell as it stands. `index`: the only index that is asked."""

    requirement: str
    index: str | None = None

    def options(self, index_option: str) -> Sequence[str]:
        """Return what tells a tool the index; `index_option`: the tool's own name for it."""
        return () if self.index is None else (index_option, self.index)


def parse_install_source(text: str, index: str | None = None) -> InstallSource:
    """Return what the user wants to be fetched where there is no segue.

    Raises:
        ValueError: it does not say exactly what, or it could be more than one word of a shell.
    """
    is_requirement = _EXACT.fullmatch(text) is not None
    if not is_requirement and not any(form.fullmatch(text) for form in (_WHEEL_PATH, _WHEEL_URL)):
        raise ValueError(f"{text!r} does not say exactly what to fetch: {_FORMS}")
    if index is None:
        return InstallSource(text)
    if not is_requirement:
        raise ValueError("a wheel comes from where it says, and an index is of no use to it: name only one of the two")
    if _INDEX_URL.fullmatch(index) is None:
        raise ValueError(f"{index!r} is not the address of a package index: https://HOST/…, without user and password")
    return InstallSource(text, index)
