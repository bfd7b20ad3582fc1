from __future__ import annotations

import pytest

from segue.http.varints import encode_varint
from segue.tunnel.folds.fold import FOLD_VERSION
from segue.tunnel.frames import Parameter
from segue.tunnel.parameters import OWN, REGISTRY, folds_alike


def test_each_end_tells_what_the_registry_has_in_order() -> None:
    assert [one.id for one in OWN] == sorted(REGISTRY)


def test_two_ends_fold_alike_if_both_tell_the_same_version() -> None:
    assert folds_alike(OWN)
    assert folds_alike((*OWN, Parameter(99, b"of a later version")))


@pytest.mark.parametrize("value", [b"", encode_varint(FOLD_VERSION + 1), encode_varint(FOLD_VERSION) + b"x", b"\x80"])
def test_another_version_or_none_is_not_alike(value: bytes) -> None:
    assert not folds_alike((Parameter(1, value),))
    assert not folds_alike(())
