"""A headless Chromium that tests show pages in: it says what a page asked for, complained of, and looks like.

It speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) over one WebSocket, so that no
driver has to be installed. Nothing here knows what segue writes.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from websockets.sync.connection import Connection

from tools.chromium import environment, installed

Scheme = Literal["light", "dark"]

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # as root, as in containers, it does not start with one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--remote-debugging-port=0",
)
_ANSWER_S = 60


def find_chromium() -> Path | None:
    """Return the program, if there is one."""
    return installed(Path(sys.prefix) / "chromium")


class BrowserPage:
    """One tab. `complaints` are errors and warnings of its console; `requests` the addresses that it asked for."""

    def __init__(self, connection: Connection, session: str) -> None:
        self._connection, self._session = connection, session
        self._number = 0
        self._loaded = False
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._number += 1
        message = {"id": self._number, "sessionId": self._session, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def show(self, url: str, *, width: int, scheme: Scheme) -> None:
        """Load a page at that width, and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._receive()

    def evaluate(self, script: str) -> Any:  # noqa: ANN401 - any JSON value
        """Return what a script in the page returns."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """Write a picture of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(timeout=_ANSWER_S))
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Audits.issueAdded":
                self.complaints.append(json.dumps(parameters))
            case _:
                pass
        return message


@contextmanager
def browsing(folder: Path) -> Iterator[BrowserPage]:
    """Run Chromium with its profile in that folder, and open a tab."""
    from websockets.sync.client import connect

    program = find_chromium()
    assert program is not None, "the test is skipped where there is no Chromium"
    with subprocess.Popen(
        [str(program), *_ARGUMENTS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(program),
    ) as running:
        try:
            with connect(_address(running), max_size=None, open_timeout=_ANSWER_S) as connection:
                yield _open_tab(connection)
        finally:
            running.kill()


def _address(running: subprocess.Popen[str]) -> str:
    """Return where Chromium listens: it says so on stderr."""
    assert running.stderr is not None
    head = "DevTools listening on "
    return next(line for line in running.stderr if line.startswith(head)).removeprefix(head).strip()


def _open_tab(connection: Connection) -> BrowserPage:
    def ask(number: int, method: str, **parameters: object) -> dict[str, Any]:
        connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(connection.recv(timeout=_ANSWER_S))).get("id") != number:
            pass
        result: dict[str, Any] = answer["result"]
        return result

    target = ask(1, "Target.createTarget", url="about:blank")["targetId"]
    page = BrowserPage(connection, ask(2, "Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
    for domain in ("Page", "Network", "Runtime", "Log", "Audits"):
        page.call(f"{domain}.enable")
    return page
