"""Who may use the sidecar, as `segue doctor` tells it."""

from __future__ import annotations

import pytest

from segue.sidecar.agent_access import AccessMode
from segue.sidecar.diagnosis.access_checks import judge_access
from segue.sidecar.diagnosis.check_results import CheckStatus


@pytest.mark.parametrize(
    ("mode", "has_token", "tells_users", "status", "said"),
    [
        ("user", False, True, "passed", "programs of your own user may use the sidecar"),
        ("user", True, True, "passed", "own user may use the sidecar, and whoever has its token"),
        ("user", False, False, "failed", "does not tell whose a connection is"),
        ("user", True, False, "passed", "whoever has the token in the address"),
        ("token", False, True, "failed", "no token is set"),
        ("token", True, False, "passed", "whoever has the token"),
        ("anyone", False, False, "passed", "everybody who reaches the sidecar's port"),
    ],
)
def test_who_may_use_the_sidecar_and_what_to_do(
    mode: AccessMode, has_token: bool, tells_users: bool, status: CheckStatus, said: str
) -> None:
    result = judge_access(mode, has_token=has_token, tells_users=tells_users)
    assert (result.name, result.status) == ("access", status)
    assert said in result.finding
    assert ("SEGUE_SIDECAR_TOKEN" in result.cure) is (status == "failed")
    assert ("other users" in result.finding) is (mode == "anyone")
