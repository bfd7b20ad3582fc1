"""The command that opens a link by ssh: the user's own `ssh`, and what it runs on the far side.

Everything that the user has configured for ssh counts: keys, agent, jump hosts, host keys. Set here is only what a link
needs, and what would break it. The far side is given fixed text, in which nothing needs quoting. Pure. Not here:
running it (`segue.sidecar.ssh_stream`).
"""

from __future__ import annotations

from segue.sidecar.install_source import InstallSource
from segue.sidecar.ssh_address import SshAddress
from segue.tunnel.ssh_greeting import MARK, Progress

#: The relay, by the name under which the far segue knows it.
RELAY_COMMAND = "ssh-relay"

_OPTIONS = (
    "-T",  # no terminal there: the connection carries bytes
    "-x",
    "-a",  # nothing of this machine is lent to that one
    "-e",
    "none",  # no byte is an escape character
    "-oRequestTTY=no",
    "-oRemoteCommand=none",  # ours is the command
    "-oClearAllForwardings=yes",  # one that is taken already would end the connection
    "-oPermitLocalCommand=no",
    "-oControlMaster=no",
    "-oControlPath=none",  # each link is a connection of its own: a dead one must not be shared with the next
    "-oCompression=no",  # what travels is compressed, except credentials, which must never be
    "-oLogLevel=ERROR",  # what it then says is why it failed
)
#: Without a person to answer, ssh asks nothing: no password, and no consent to a new host key.
_UNATTENDED = ("-oBatchMode=yes",)

#: Where `pipx`, `uv tool` and package managers put programs, which a shell without login may not know.
_PLACES = "$HOME/.local/bin:/usr/local/bin:/opt/homebrew/bin"


def ssh_arguments(address: SshAddress, script: str, *, attended: bool, connect_s: float) -> list[str]:
    """Return the command line. `attended`: a person is at the terminal, and may be asked by ssh."""
    user = () if address.user is None else ("-l", address.user)
    port = () if address.port is None else ("-p", str(address.port))
    timeout = f"-oConnectTimeout={max(1, round(connect_s))}"
    options = (*_OPTIONS, *(() if attended else _UNATTENDED), timeout, *user, *port)
    return ["ssh", *options, "--", address.host, script]


def relay_script(install: InstallSource | None) -> str:
    """Return what the far side's shell runs: the relay of the segue that is there.

    `install`: what `uvx` or `pipx` fetches if there is none; None: nothing is fetched. The text is one line, and in
    single quotes, so that every login shell (sh, bash, zsh, fish, csh) gives it to `sh` as it is.
    """
    steps = [f'PATH="$PATH:{_PLACES}"', "export PATH", _run_if_there("segue", "FOUND", f"segue {RELAY_COMMAND}")]
    if install is not None:
        uvx = ("uvx", *install.options("--default-index"), "--from", install.requirement)
        pipx = ("pipx", "run", *install.options("--index-url"), "--spec", install.requirement)
        steps += [_run_if_there(one[0], "INSTALLING", " ".join((*one, "segue", RELAY_COMMAND))) for one in (uvx, pipx)]
    steps += [f"echo {MARK} MISSING", "exit 127"]
    return f"exec sh -c '{'; '.join(steps)}'"


def _run_if_there(program: str, progress: Progress, command: str) -> str:
    return f"if command -v {program} >/dev/null 2>&1; then echo {MARK} {progress}; exec {command}; fi"
