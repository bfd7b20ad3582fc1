"""The scripted model can be imported from the package of doubles, whole."""

from __future__ import annotations

from segue.testing import scripted
from segue.upstreams import scripted as home


def test_every_public_name_is_exported_and_is_the_same_object() -> None:
    own = {name for name, value in vars(home).items() if getattr(value, "__module__", "") == home.__name__}
    public = {name for name in own if not name.startswith("_")} - {"check_calls"} | {"MODEL", "Step"}
    assert set(scripted.__all__) == public
    assert all(vars(scripted)[name] is vars(home)[name] for name in public)
