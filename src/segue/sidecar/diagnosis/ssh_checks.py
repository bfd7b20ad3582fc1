"""The check of a gateway that is reached by ssh: whether ssh gets there, and whether a gateway runs there or starts.

What lies before that is for ssh itself to tell. Pure. Not here: looking (`segue.sidecar.ssh_stream`).
"""

from __future__ import annotations

from segue.sidecar.diagnosis.check_results import DiagnosticResult, failed, passed
from segue.sidecar.ssh_failures import SshFailure


def judge_ssh(failure: SshFailure | None) -> tuple[DiagnosticResult, ...]:
    """Return the result of the check. The reason of a failure that lasts says what to do about it."""
    if failure is None:
        return (passed("ssh", "ssh connects without a question, and a gateway runs there"),)
    cure = "" if failure.persistent else "Try ssh by itself, with -v: it says how far it gets."
    return (failed("ssh", failure.reason, cure),)
