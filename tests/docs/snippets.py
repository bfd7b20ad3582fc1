"""Runs the snippets of a page, in order, as a reader would: in one folder, against a gateway that really listens.

The info string of a fence says what this module does with it. It runs `python` as a program, `python pytest` as a test
after all others, and `sh` with bash; `segue serve` or `segue sidecar` in the last line of an `sh` snippet starts the
page's gateway or sidecar. `toml` must load and becomes `segue.toml`; `json` must parse; `text output` must be what the
snippet before it printed (`…` stands for anything); `text` and `mermaid` are only for readers. A fence without one of
these is a mistake. Not here: the pages, and how Python programs are started (`programs`).
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TextIO

import msgspec

from segue.config import load
from tests.docs.programs import Programs

PORT, SIDECAR_PORT = "4747", "4748"
#: How long one snippet may take before the page has failed.
PATIENCE_S = 30.0

#: Commands that are not run, by their beginning, and why.
NOT_RUN = {
    "make ": "its verbs need the checkout; the tests run in what `make setup` makes",
}

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_SERVE = re.compile(r"(?:\.venv/bin/)?segue (?P<what>serve|sidecar)\b(?!.* --stats\b)")
_READY = re.compile(r"segue: (?:sidecar )?listening on http://\S+?:(?P<port>\d+)\n")


class Snippet(NamedTuple):
    """One fenced block. `line` is where its code begins."""

    info: str
    code: str
    line: int


def snippets_of(text: str) -> list[Snippet]:
    """Return the fenced blocks of a page."""
    found = [Snippet(m["info"].strip(), m["code"], text[: m.start()].count("\n") + 2) for m in _FENCE.finditer(text)]
    marks = sum(line.lstrip().startswith("```") for line in text.splitlines())
    assert marks == 2 * len(found), "a fence is indented or not closed, so that nothing would run it"
    return found


def runs(snippet: Snippet) -> list[str]:
    """Return the lines of a shell snippet that are run."""
    return [line for line in snippet.code.splitlines() if not line.startswith(tuple(NOT_RUN))]


class Page:
    """One page while its snippets run, in a folder of its own."""

    def __init__(self, name: str, folder: Path, programs: Programs, *, local_model: bool = False) -> None:
        self._name = name
        self._programs = programs
        self._folder = folder
        self._local_model = local_model
        self._printed = ""
        self._tests: list[Snippet] = []
        self._running: dict[str, tuple[int, TextIO]] = {}  # "serve", then perhaps "sidecar": process id, and stdout
        self._ports = {"serve": PORT, "sidecar": SIDECAR_PORT}
        (folder / ".venv").symlink_to(sys.prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._stop("sidecar")
        finally:
            self._stop("serve")

    def run(self, snippet: Snippet) -> None:
        """Do with a snippet what its info string says."""
        match snippet.info:
            case "python":
                self._run_python(snippet)
            case "python pytest":
                self._keep_test(snippet)
            case "sh":
                self._run_shell(snippet)
            case "toml":
                self._load(snippet)
            case "json":
                msgspec.json.decode(snippet.code)
            case "text output":
                self._compare(snippet)
            case "text" | "mermaid":
                pass
            case other:
                raise AssertionError(f"{self._at(snippet)}: {other!r} does not say what is done with it; is it `text`?")

    def finish(self) -> None:
        """Run the page's tests, all in one go: they start gateways of their own."""
        if self._tests:
            options = ("-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "--rootdir=.")
            self._run_program(self._tests[0], "pytest", *options)

    # --- one kind each -----------------------------------------------------------------------------------------------

    def _run_python(self, snippet: Snippet) -> None:
        program = self._folder / f"line_{snippet.line}.py"
        program.write_text(self._with_port(snippet.code), encoding="utf-8")
        self._run_program(snippet, program.name)

    def _keep_test(self, snippet: Snippet) -> None:
        self._tests.append(snippet)
        program = self._folder / f"test_line_{snippet.line}.py"
        program.write_text(snippet.code, encoding="utf-8")

    def _run_shell(self, snippet: Snippet) -> None:
        lines = runs(snippet)
        serving = lines.pop() if lines and _SERVE.match(lines[-1]) else None
        assert not any(map(_SERVE.match, lines)), f"{self._at(snippet)}: nothing is reached after a command that serves"
        if lines:
            script = self._with_port("\n".join(lines))
            done = subprocess.run(
                ("bash", "-euo", "pipefail", "-c", script), cwd=self._folder, env=self._environment(),
                capture_output=True, text=True, check=False, timeout=PATIENCE_S,
            )  # fmt: skip
            self._ended(snippet, done.returncode, done.stdout, done.stderr)
        if serving is not None:
            self._serve(serving)

    def _load(self, snippet: Snippet) -> None:
        file = self._folder / "segue.toml"
        file.write_text(snippet.code, encoding="utf-8")
        load(file, {})

    def _compare(self, snippet: Snippet) -> None:
        wanted = "".join(".*" if piece == "…" else re.escape(piece) for piece in re.split("(…)", snippet.code.strip()))
        printed = self._printed.strip()
        for what, port in (("serve", PORT), ("sidecar", SIDECAR_PORT)):
            printed = printed.replace(f":{self._ports[what]}", f":{port}")
        assert re.fullmatch(wanted, printed, re.DOTALL), f"{self._at(snippet)}: what was printed is\n{printed}"

    # --- processes ---------------------------------------------------------------------------------------------------

    def _run_program(self, snippet: Snippet, *arguments: str) -> None:
        self._ended(snippet, *self._programs.run(arguments, self._folder, self._environment()))

    def _ended(self, snippet: Snippet, status: int, printed: str, told: str) -> None:
        self._printed = printed
        assert status == 0, f"{self._at(snippet)}: exit status {status}\n{printed}{told}"

    def _with_port(self, code: str) -> str:
        """Put in the ports of gateway and sidecar; start a gateway if the page has none yet."""
        if PORT in code and "serve" not in self._running:
            self._serve("segue serve")
        return code.replace(PORT, self._ports["serve"]).replace(SIDECAR_PORT, self._ports["sidecar"])

    def _serve(self, command: str) -> None:
        """Start what goes on running; a new gateway ends the page's sidecar too."""
        found = _SERVE.match(command)
        assert found is not None
        what = found["what"]
        settings = {"SEGUE_SIDECAR_PORT": "0"} if what == "sidecar" else self._gateway_settings()
        command = self._with_port(command) if what == "sidecar" else command
        self._stop("sidecar")
        if what == "serve":
            self._stop("serve")
        reading, writing = os.pipe()
        arguments = shlex.split(command.removeprefix(".venv/bin/"))
        process_id = self._programs.start(arguments, self._folder, self._environment(**settings), writing)
        os.close(writing)
        stdout = os.fdopen(reading, encoding="utf-8")
        self._running[what] = process_id, stdout
        self._printed = stdout.readline()
        ready = _READY.fullmatch(self._printed)
        assert ready is not None, f"{self._name}: `{command}` did not start"
        self._ports[what] = ready["port"]

    def _gateway_settings(self) -> dict[str, str]:
        """Take a free port; offer only the scripted model, unless the page is about others."""
        file = self._folder / "segue.toml"
        if self._local_model or (file.exists() and "[[upstream]]" in file.read_text(encoding="utf-8")):
            return {"SEGUE_SERVER_PORT": "0"}
        upstream = {"NAME": "scripted", "DIALECT": "scripted", "MODELS": "scripted"}
        return {"SEGUE_SERVER_PORT": "0"} | {f"SEGUE_UPSTREAM_0_{name}": value for name, value in upstream.items()}

    def _stop(self, what: str) -> None:
        running = self._running.pop(what, None)
        if running is None:
            return
        process_id, stdout = running
        os.kill(process_id, signal.SIGTERM)
        with stdout:
            status = self._programs.wait(process_id)
        assert status == 0, f"{self._name}: `segue {what}` ended with {status}"

    def _environment(self, **more: str) -> dict[str, str]:
        """Nothing that the machine's own settings could change; no way to a proxy."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "SEGUE_", "PYTEST"))
        }
        path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
        ours = {"PATH": path, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        # Each plugin that is installed would be imported for every page that has tests; they need only the one named.
        ours["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        places = {f"XDG_{kind}_HOME": str(self._folder / f".{kind.lower()}") for kind in ("CACHE", "CONFIG")}
        return {**kept, **ours, **places, **more}

    def _at(self, snippet: Snippet) -> str:
        return f"{self._name}:{snippet.line}"


def pages(root: Path) -> list[Path]:
    """Return every page that a reader may follow: the README and all of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
