"""Who may use the sidecar of these settings on this machine, in words. Pure.

Not here: letting anybody in (`segue.sidecar.agent_access`).
"""

from __future__ import annotations

from segue.sidecar.agent_access import AccessMode
from segue.sidecar.diagnosis.check_results import DiagnosticResult, failed, passed

_NAME = "access"
_SET_TOKEN = "Set SEGUE_SIDECAR_TOKEN, or [sidecar] token of the configuration: at least 16 letters and digits."  # noqa: S105 - words, not a password


def judge_access(mode: AccessMode, *, has_token: bool, tells_users: bool) -> DiagnosticResult:
    """Return who may use the sidecar. `tells_users`: the platform tells whose a connection is."""
    if mode == "anyone":
        finding = "everybody who reaches the sidecar's port may use it, other users of this machine too"
        return passed(_NAME, finding, 'access = "user" lets in the programs of your own user only.')
    if mode == "user" and tells_users:
        others = ", and whoever has its token" if has_token else ""
        return passed(_NAME, f"programs of your own user may use the sidecar{others}")
    why = "this platform does not tell whose a connection is: " if mode == "user" else ""
    finding = f"{why}whoever has the token in the address may use the sidecar"
    if has_token:
        return passed(_NAME, finding)
    return failed(_NAME, f"{finding}, and no token is set; `segue run` draws one for each run", _SET_TOKEN)
