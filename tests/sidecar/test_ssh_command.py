"""The command line that opens a link by ssh, and what it runs on the far side."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from segue.sidecar.install_source import InstallSource
from segue.sidecar.ssh_address import SshAddress
from segue.sidecar.ssh_command import relay_script, ssh_arguments

PINNED = InstallSource("segue==1.0")


def test_the_address_is_given_as_arguments_behind_which_no_option_is_read() -> None:
    line = ssh_arguments(SshAddress("box", "me", 2222), "true", attended=False, connect_s=0.2)
    assert line[0] == "ssh"
    assert line[-7:] == ["-l", "me", "-p", "2222", "--", "box", "true"]
    assert "-oConnectTimeout=1" in line


def test_what_the_address_leaves_open_is_for_the_users_configuration() -> None:
    line = ssh_arguments(SshAddress("box"), "true", attended=True, connect_s=10.0)
    assert line[-4:] == ["-oConnectTimeout=10", "--", "box", "true"]


def test_only_a_person_at_the_terminal_is_asked_and_host_keys_are_checked_as_configured() -> None:
    unattended, attended = (ssh_arguments(SshAddress("h"), "x", attended=a, connect_s=1.0) for a in (False, True))
    assert set(unattended) - set(attended) == {"-oBatchMode=yes"}
    assert not [option for option in unattended if "HostKey" in option or "KnownHosts" in option]


def test_ssh_takes_every_option(tmp_path: Path) -> None:
    """`ssh -G` reads options and configuration as a connection would, and shows the outcome."""
    line = ssh_arguments(SshAddress("box", "me", 22), "true", attended=False, connect_s=10.0)
    try:
        shown = subprocess.run(
            [line[0], "-G", "-F", "/dev/null", *line[1:-1]], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("there is no ssh here")
    settings = dict(one.split(" ", 1) for one in shown.stdout.splitlines() if " " in one)
    wanted = {
        "batchmode": "yes",
        "compression": "no",
        "clearallforwardings": "yes",
        "requesttty": "false",
        "user": "me",
    }
    assert wanted.items() <= settings.items()
    assert settings.get("stricthostkeychecking") == "ask"  # which without a person means no


def played(script: str, programs: Path) -> tuple[int, str]:
    """Run the script as the far side's login shell does, with these programs alone."""
    command = script.replace(
        "/usr/local/bin:/opt/homebrew/bin", ""
    )  # what this machine has there is no part of the test
    shell = {"PATH": str(programs), "HOME": str(programs)}
    ended = subprocess.run(["/bin/sh", "-c", command], env=shell, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


def program(folder: Path, name: str) -> None:
    file = folder / name
    file.write_text(f'#!/bin/sh\necho {name} "$@"\n')
    file.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    (tmp_path / "sh").symlink_to("/bin/sh")
    return tmp_path


def test_the_segue_that_is_there_is_run(programs: Path) -> None:
    for name in ("segue", "uvx"):
        program(programs, name)
    assert played(relay_script(PINNED), programs) == (0, "segue-ssh FOUND\nsegue ssh-relay\n")


def test_a_segue_that_only_a_login_shell_would_find_is_found(programs: Path) -> None:
    (programs / ".local/bin").mkdir(parents=True)
    program(programs / ".local/bin", "segue")
    assert played(relay_script(None), programs) == (0, "segue-ssh FOUND\nsegue ssh-relay\n")


def test_nothing_is_fetched_unless_it_is_allowed(programs: Path) -> None:
    program(programs, "uvx")
    assert played(relay_script(None), programs) == (127, "segue-ssh MISSING\n")
    assert played(relay_script(PINNED), programs) == (
        0,
        "segue-ssh INSTALLING\nuvx --from segue==1.0 segue ssh-relay\n",
    )


def test_pipx_fetches_where_there_is_no_uvx(programs: Path) -> None:
    program(programs, "pipx")
    assert played(relay_script(PINNED), programs)[1].endswith("pipx run --spec segue==1.0 segue ssh-relay\n")


def test_the_script_is_one_argument_in_single_quotes_for_every_shell() -> None:
    script = relay_script(InstallSource("segue==1.0+local", "https://pypi.example.com/simple/"))
    assert [*shlex.split(script)[:3], script.count("'"), script.count("\n"), script.count("!")] == [
        "exec",
        "sh",
        "-c",
        2,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("tool", "line"),
    [
        ("uvx", "uvx --default-index https://pypi.example.com/simple/ --from segue==1.0 segue ssh-relay"),
        ("pipx", "pipx run --index-url https://pypi.example.com/simple/ --spec segue==1.0 segue ssh-relay"),
    ],
)
def test_an_index_of_ones_own_replaces_the_public_one(programs: Path, tool: str, line: str) -> None:
    """Beside it, a package of the same name could come from the public one."""
    program(programs, tool)
    source = InstallSource("segue==1.0", "https://pypi.example.com/simple/")
    assert played(relay_script(source), programs)[1] == f"segue-ssh INSTALLING\n{line}\n"


def test_a_wheel_of_that_machine_is_found_in_its_home(programs: Path) -> None:
    program(programs, "uvx")
    told = played(relay_script(InstallSource("~/segue-1.0-py3-none-any.whl")), programs)[1]
    assert f"uvx --from {programs}/segue-1.0-py3-none-any.whl segue ssh-relay" in told
