"""Machines to ssh to, with a real gateway on the far side: by a script in place of `ssh`, and by OpenSSH itself.

OpenSSH needs no port: `ssh` runs a server for itself alone, as its `ProxyCommand`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.sidecar.ssh_machines import SshDouble

_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_SSH = shutil.which("ssh")
#: Where sshd separates its privileges, if root starts it; a service manager makes it elsewhere.
_SEPARATION = Path("/run/sshd")
_SERVER = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
SetEnv PATH={folder}/far:/bin:/usr/bin
"""
_CLIENT = """
Host box other
    HostKeyAlias box
    ProxyCommand {sshd} -i -f {folder}/sshd_config
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
"""

without_openssh = pytest.mark.skipif(_SSHD is None or _SSH is None, reason="there is no OpenSSH server here")


class FarMachine(SshDouble):
    """A machine with a real segue. Its gateway forwards /v1 to a provider, and ends soon when it is idle."""

    #: In /tmp itself: the address of a Unix socket is short.
    run: Path

    def install_segue(self, provider: str, *, idle_s: float) -> None:
        """Install segue for a user whose own configuration has a route to the provider."""
        config = self.folder / "config" / "segue" / "segue.toml"
        config.parent.mkdir(parents=True)
        # A sidecar that leaves before its last acknowledgement keeps its exchange there for a while.
        text = f'[[route]]\npath = "/v1"\ntarget = "{provider}"\n[ssh]\nidle_s = {idle_s}\n[tunnel]\naway_s = 15\n'
        config.write_text(text)
        for place, mode in ((config, 0o600), (config.parent, 0o700), (config.parent.parent, 0o700)):
            place.chmod(mode)
        self.install(
            f'export XDG_CONFIG_HOME="{self.folder}/config" XDG_STATE_HOME="{self.folder}/state" '
            f'SEGUE_SSH_DIRECTORY="{self.run}"\nexec "{sys.executable}" -P -m segue "$@"'
        )

    @property
    def log(self) -> str:
        """What its gateways have logged."""
        return (self.folder / "state" / "segue" / "ssh-gateway.log").read_text()

    @property
    def listens(self) -> bool:
        """A gateway listens, or was killed while it did."""
        return any(self.run.glob("*.sock"))

    def cut_far(self) -> None:
        """Kill what the newest `ssh` has on the far side: the server of its session, if there is one."""
        ssh = psutil.Process(self.newest())
        for process in ssh.children() or [ssh]:
            process.send_signal(signal.SIGKILL)


class OpenSshMachine(FarMachine):
    """A machine with an OpenSSH server, which one key may log in to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if os.geteuid() == 0:
            _SEPARATION.mkdir(exist_ok=True)
        for name in ("host", "user"):
            self.make_key(name)
        (folder / "sshd_config").write_text(_SERVER.format(folder=folder))
        (folder / "ssh_config").write_text(_CLIENT.format(folder=folder, sshd=_SSHD))
        wrapper = self.near / "ssh"
        wrapper.write_text(f'#!/bin/sh\necho "$$ $*" >>"{folder}/started"\nexec {_SSH} -F "{folder}/ssh_config" "$@"\n')
        wrapper.chmod(0o755)
        self.trust()

    def make_key(self, name: str) -> None:
        """Make a key, in place of the one that has this name."""
        (self.folder / name).unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    def trust(self) -> None:
        """Make the host key known."""
        (self.folder / "known_hosts").write_text(f"box {(self.folder / 'host.pub').read_text()}")


@contextmanager
def machine_of(kind: type[FarMachine], folder: Path) -> Iterator[FarMachine]:
    """Make a machine that every `ssh` of a test leads to."""
    with tempfile.TemporaryDirectory(prefix="segue-") as run, pytest.MonkeyPatch.context() as patch:
        machine = kind(folder)
        machine.run = Path(run)
        patch.setenv("PATH", f"{machine.near}:{os.environ['PATH']}")
        yield machine
