"""One session with a tool, the same for every framework: what the user says, the tool, and how a program is started.

    python FRAMEWORK.py URL MODEL replay|by-id

A program prints `{"answers": […], "runs": […]}`: the last words of each of the two turns, and the cities that its tool
was asked for. It sends its history again each time, or continues by the id of the response before. Programs run in the
framework's own environment, so they import nothing of segue.
"""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

QUESTIONS = ("How warm is it in Oslo?", "Is that cold?")
INSTRUCTIONS = "Use the tool to answer."
KEY = "k"


class Options(NamedTuple):
    """What the program was started with; `url` ends in `/v1`."""

    url: str
    model: str
    by_id: bool


class Session:
    """What came of it."""

    def __init__(self) -> None:
        _, url, model, mode = sys.argv
        self.options = Options(f"{url}/v1", model, mode == "by-id")
        self.answers: list[str] = []
        self.runs: list[str] = []

    def weather(self, city: str) -> str:
        """The tool."""
        self.runs.append(city)
        return f"{city}: 7 degrees"

    def end(self) -> None:
        """Tell what came of it, on a line of its own."""
        print(json.dumps({"answers": self.answers, "runs": self.runs}))
