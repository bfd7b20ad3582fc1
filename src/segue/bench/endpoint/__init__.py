"""The benchmark of somebody else's server: what it supports, what that saves there, and whether it keeps the history.

`plan` says what is asked and what that costs, `conversation` and `checks` ask it, `verdicts` judge what came, `measure`
puts it together, and `view` shows it. Not here: turns on the wire (`segue.bench.meters.responses_turns`).
"""

from __future__ import annotations
