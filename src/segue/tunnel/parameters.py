"""Parameters: what each end of the tunnel tells about itself in HELLO or WELCOME, beside what every link needs.

An end ignores an id that it does not know, so that a later version can tell more. Not here: how they are written
(`frames`), and what follows from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from segue.http.varints import encode_varint, read_varint
from segue.tunnel.folds.fold import FOLD_VERSION
from segue.tunnel.frames import Parameter

_FOLD: Final = 1
#: The registry: what each id is called, and what its value is.
REGISTRY: Final = MappingProxyType(
    {_FOLD: ("fold version", "A number: how this end folds replies. Without it, the end has no fold in common.")}
)
#: What this end tells, in the order of the ids.
OWN: Final = (Parameter(_FOLD, encode_varint(FOLD_VERSION)),)


def folds_alike(parameters: Iterable[Parameter]) -> bool:
    """Tell whether the end with these parameters folds replies as this one does."""
    told = next((one.value for one in parameters if one.id == _FOLD), b"")
    return read_varint(told, 0) == (FOLD_VERSION, len(told))
