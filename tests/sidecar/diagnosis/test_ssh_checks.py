"""The check of a gateway that is reached by ssh."""

from __future__ import annotations

import pytest

from segue.sidecar.diagnosis.ssh_checks import judge_ssh
from segue.sidecar.ssh_failures import SshFailure


@pytest.mark.parametrize(
    ("failure", "status", "finding", "cure"),
    [
        (None, "passed", "ssh connects without a question, and a gateway runs there", ""),
        (SshFailure("no segue: install it", persistent=True), "failed", "no segue: install it", ""),
        (SshFailure("ssh failed", persistent=False), "failed", "ssh failed", "Try ssh by itself, with -v"),
    ],
)
def test_what_lasts_says_its_cure_itself(failure: SshFailure | None, status: str, finding: str, cure: str) -> None:
    [check] = judge_ssh(failure)
    assert (check.name, check.status, check.finding) == ("ssh", status, finding)
    assert check.cure.startswith(cure)
    assert bool(check.cure) is bool(cure)
