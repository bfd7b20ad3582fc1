"""What a link that did not open by ssh is told as: with the cure, and whether trying again can help."""

from __future__ import annotations

import pytest

from segue.sidecar.ssh_address import SshAddress
from segue.sidecar.ssh_failures import explain_end, wrong_protocol
from segue.tunnel.ssh_greeting import Progress, RelayReady

BOX = SshAddress("box", "me", 22)
#: As OpenSSH 9.2 writes it.
CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Host key for box has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("status", "told", "progress", "reason", "persistent"),
    [
        (127, "", "MISSING", "segue is not installed on box, or not where its shell looks", True),
        (127, "", "MISSING", "with a wheel of your checkout", True),
        (127, "", "MISSING", "with --install, which needs uvx or pipx on box", True),
        (1, "error: no such package\n", "INSTALLING", "could not be fetched on box: error: no such package", True),
        (1, "Unknown command", "FOUND", "the segue on box is too old for ssh:// gateways, or does not run: Unk", True),
        (255, CHANGED, "nothing", "the host key of box has changed, and ssh refuses it", True),
        (255, "Host key verification failed.\r\n", "nothing", "ssh does not know the host key of box", True),
        (
            255,
            "No ED25519 host key is known for box and you have requested…",
            "nothing",
            "does not know the host",
            True,
        ),
        (255, "me@box: Permission denied (publickey).\r\n", "nothing", "could not log in to box without a ques", True),
        (
            255,
            "ssh: connect to host box port 22: Connection refused\r\n",
            "nothing",
            "ssh failed: ssh: connect to host box port 22: Connection refused",
            False,
        ),
        (255, "banner\n@@@@\n  ", "nothing", "ssh failed: banner", False),
        (255, "", "nothing", "ssh failed without a word", False),
        (None, "", "nothing", "ssh did not reach box in time", False),
        (1, "This account is not available.", "nothing", "with status 1: This account is not available", True),
    ],
)
def test_each_end_is_told_with_its_cure(
    status: int | None, told: str, progress: Progress, reason: str, *, persistent: bool
) -> None:
    failure = explain_end(status, told, progress, BOX)
    assert reason in failure.reason
    assert failure.persistent is persistent


def test_the_far_sides_words_are_short_and_control_no_terminal() -> None:
    failure = explain_end(1, "x\x1b]0;title\x07\n" + "y" * 5000, "nothing", BOX)
    assert failure.reason.isprintable()
    assert len(failure.reason) < 400


def test_a_relay_of_another_protocol_is_told() -> None:
    assert wrong_protocol(RelayReady(1, "0.1.0"), BOX) is None
    failure = wrong_protocol(RelayReady(2, "9.0"), BOX)
    assert failure is not None
    assert "box has 9.0" in failure.reason
