"""Generates text that looks and compresses like what agents send: instructions, source, listings, logs, diffs.

A `ProseWriter` is seeded and deterministic. Each has a project of its own, whose names recur in everything it writes,
like those of a repository. The text means nothing, but its entropy is realistic: zstd at level 3 makes a prompt of 20
KB 2.3 to 2.6 times smaller and a tool's output of 1 to 2 KB 1.9 to 2.9 times smaller, like those of real agents
(`tests/bench/workloads/test_prose.py` checks that). Not here: the JSON around the text (`sessions`).
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_LITTLE = _words(
    "the the the the the a a of of to to to and and in for is it that with as on be by or from not this an are when "
    "if at your you you any only must can into than all their before after without unless through each has have its "
    "which while may do use should never always so but over about between other more most same new until both such"
)
_NOUNS = _words(
    "file line test change command user tool output input path request response error result value key name option "
    "setting module function class method argument parameter object list string number index table record entry field "
    "column row query session task step plan goal state cache buffer stream socket server client network message "
    "event queue worker thread process signal handler callback hook policy rule limit quota budget timeout retry "
    "delay interval schedule job batch report summary detail section heading paragraph sentence word token prompt "
    "context history branch commit patch diff merge conflict repository directory folder workspace project package "
    "dependency version release tag build target artifact script pipeline stage environment variable secret "
    "credential permission role owner group account tenant region shard replica leader snapshot backup checkpoint "
    "migration schema model view template component widget button dialog layout style color icon font image video "
    "sample metric counter gauge histogram trace span log level format encoding header body payload frame packet "
    "checksum digest signature certificate cipher hash tree node edge graph cycle cursor pointer offset length range "
    "boundary prefix suffix pattern expression literal symbol scope closure iterator generator decorator wrapper "
    "adapter proxy factory builder visitor parser lexer compiler runtime kernel driver device memory page block disk "
    "volume invoice order shipment warehouse shelf stock supplier customer address price discount currency balance "
    "ledger transfer receipt sensor reading threshold alarm valve pump turbine vessel cargo route harbor weather"
)
_VERBS = _words(
    "read write edit run check keep return raise call open close send receive update create delete remove insert "
    "replace move copy rename search find list show print parse encode decode validate verify confirm assume explain "
    "describe report review approve reject cancel retry resume pause start stop wait notify subscribe publish commit "
    "revert rebase fetch push pull install configure enable disable load store save restore append truncate split "
    "join merge filter sort group count measure compare match resolve expand collapse render format escape quote "
    "normalize convert compute estimate allocate release acquire reserve ship receive charge refund audit inspect "
    "prefer avoid ignore respect preserve summarize propose suggest ask answer follow track record document"
)
_QUALITIES = _words(
    "local remote empty missing invalid unknown current previous next final initial default optional required "
    "explicit implicit relative absolute public private internal external safe unsafe narrow broad simple complex "
    "stable pending active stale fresh partial complete nested flat sorted unique duplicate large small slow fast "
    "hidden visible shared separate temporary permanent readable destructive reversible consistent deterministic "
    "concurrent sequential idempotent recoverable unexpected relevant unrelated careful concise precise"
)
_MARKS = ("- ", "- ", "- ", "* ", "", "", "", "1. ", "2. ", "  - ")


class ProseWriter:
    """Writes text of one project; two of the same seed write the same."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(f"prose:{seed}")
        pick = self.random.choice
        self.project = f"{pick(_NOUNS)}-{pick(_NOUNS)}"
        self.folder = f"/home/dev/src/{self.project}"
        self.package = self.project.replace("-", "_")
        self._things = self.random.sample(_NOUNS, 18)
        self._names = [self._new_name() for _ in range(40)]
        self._files = [
            f"{pick((self.package, 'tests', f'{self.package}/core'))}/{name}.py" for name in self._names[:14]
        ]

    # --- words -------------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """Return an identifier: mostly one of the project's."""
        known = self.random.random() < 0.88  # noqa: PLR2004 - new names are rare, and there are always some
        return self.random.choice(self._names) if known else self._new_name()

    def path(self) -> str:
        """Return a file of the project."""
        return self.random.choice(self._files)

    def type_name(self) -> str:
        """Return the name of a class."""
        return "".join(part.capitalize() for part in self.name().split("_"))

    def hexadecimal(self, size: int) -> str:
        """Return random hexadecimal digits, as in an id."""
        return f"{self.random.getrandbits(size * 4):0{size}x}"

    def identifier(self) -> str:
        """Return a UUID."""
        digits = self.hexadecimal(32)
        return "-".join((digits[:8], digits[8:12], "7" + digits[13:16], "a" + digits[17:20], digits[20:]))

    def secret(self, size: int) -> str:
        """Return base64 of random bytes, so many characters: what is encrypted or signed looks like this."""
        return base64.b64encode(self.random.randbytes(size)).decode()[:size]

    def _new_name(self) -> str:
        pick, chance = self.random.choice, self.random.random()
        thing = pick(self._things) if chance < 0.6 else pick(_NOUNS)  # noqa: PLR2004 - the mix of old and new words
        first = pick(_VERBS) if chance < 0.45 else pick((*_QUALITIES, *_NOUNS))  # noqa: PLR2004 - as above
        return f"{first}_{thing}"

    # --- language ----------------------------------------------------------------------------------------------------

    def sentence(self) -> str:
        """Return a sentence."""
        pick, words = self.random.choice, list[str]()
        for _ in range(self.random.randint(4, 11)):
            words += (pick(_LITTLE),) if self.random.random() < 0.6 else ()  # noqa: PLR2004 - as in English
            words.append(self._word())
        text = " ".join(words)
        if self.random.random() < 0.3:  # noqa: PLR2004 - one sentence in three has a clause
            text += f", {pick(_LITTLE)} {self._word()} {pick(_NOUNS)}"
        return text[0].upper() + text[1:] + pick("....:;")

    def _word(self) -> str:
        pick, chance = self.random.choice, self.random.random()
        if chance < 0.05:  # noqa: PLR2004 - the mix of words
            return f"`{self.name()}`"
        if chance < 0.5:  # noqa: PLR2004 - as above
            return pick(_NOUNS) + pick(("", "", "s"))
        if chance < 0.8:  # noqa: PLR2004 - as above
            return pick(_VERBS) + pick(("", "", "ing", "ed", "s"))
        return pick(_QUALITIES) + pick(("", "", "", "ly"))

    def prompt(self, size: int) -> str:
        """Return instructions with headings and lists, so many bytes."""
        return self._filled(size, self._prompt_part)

    def _prompt_part(self) -> str:
        if self.random.random() < 0.08:  # noqa: PLR2004 - a heading now and then
            return f"\n## {self._word().capitalize()} {self._word()}\n\n"
        sentences = " ".join(self.sentence() for _ in range(self.random.randint(1, 3)))
        return f"{self.random.choice(_MARKS)}{sentences}\n"

    def saying(self) -> str:
        """Return what an assistant says before it uses a tool."""
        return " ".join(self.sentence() for _ in range(self.random.randint(1, 2)))

    # --- what tools return -------------------------------------------------------------------------------------------

    def tool_output(self, size: int) -> str:
        """Return the output of some tool, about so many bytes."""
        kinds: Sequence[Callable[[int], str]] = (
            self.listing,
            self.source,
            self.source,
            self.log,
            self.found,
            self.patch,
        )
        return self.random.choice(kinds)(size)

    def listing(self, size: int) -> str:
        """Return what `ls -l` prints."""
        return self._filled(size, self._listed)

    def _listed(self) -> str:
        kind, links = self.random.choice((("drwxr-xr-x", 2), ("-rw-r--r--", 1), ("-rw-r--r--", 1), ("-rwxr-xr-x", 1)))
        bytes_ = 4096 if links > 1 else self.random.randint(20, 30_000)
        at = f"{self.random.choice(('Nov', 'Oct'))} {self.random.randint(1, 30):2} {self.random.randint(0, 23):02}"
        name = self.random.choice((self.name(), self.path().rpartition("/")[2], self.random.choice(_NOUNS)))
        return f"{kind} {links} dev dev {bytes_:5} {at}:{self.random.randint(0, 59):02} {name}\n"

    def source(self, size: int) -> str:
        """Return Python source."""
        start = f"from __future__ import annotations\n\nfrom {self.package}.{self.name()} import {self.type_name()}\n\n"
        return start + self._filled(max(size - len(start), 1), self._function)

    def _function(self) -> str:
        subject, other, thing = self.name(), self.name(), self.random.choice(self._things)
        lines = [f"def {subject}(self, {thing}: {self.type_name()}) -> {self.random.choice(('int', 'str', 'None'))}:"]
        if self.random.random() < 0.5:  # noqa: PLR2004 - half of the functions have a docstring
            lines.append(f'    """{self.sentence()}"""')
        lines += [self._statement(thing) for _ in range(self.random.randint(2, 6))]
        lines.append(f"    return {self.random.choice((other, thing, f'{thing}.{other}', 'None'))}")
        return "\n".join(lines) + "\n\n\n"

    def _statement(self, thing: str) -> str:
        name, other, amount = self.name(), self.random.choice(self._things), self.random.randint(0, 400)
        return "    " + self.random.choice(
            (
                f"{name} = self.{self.name()}({thing}, {amount})",
                f"if {thing}.{other} < {amount}:\n        raise ValueError({self._word()!r}, {thing})",
                f"for {other} in self._{name}:\n        {thing}.{self.name()}({other})",
                f"self._{name}[{thing}.{other}] += {self.random.choice((name, amount, f'len({other})'))}",
                f"# {self.sentence()}",
                f'{name} = {{"{other}": {amount}, "{self.random.choice(self._things)}": {self.name()}}}',
            )
        )

    def log(self, size: int) -> str:
        """Return what a test run prints."""
        dots = "".join(self.random.choice("........F") for _ in range(self.random.randint(8, 70)))
        start = f"{dots:72} [100%]\n{' FAILURES ':=^80}\n"
        return start + self._filled(max(size - len(start), 1), self._failure)

    def _failure(self) -> str:
        name, thing = self.name(), self.random.choice(self._things)
        wanted, got = self.random.randint(0, 900), self.random.randint(0, 900)
        return (
            f"{' test_' + name + ' ':_^80}\n\n"
            f"    def test_{name}({thing}):\n        made = {self.name()}({thing}, {wanted})\n"
            f">       assert made.{self.name()} == {wanted}\nE       AssertionError: assert {got} == {wanted}\n"
            f"E        +  where {got} = {self.type_name()}({thing}={self.random.randint(0, 99)}).{self.name()}\n\n"
            f"{self.path()}:{self.random.randint(1, 300)}: AssertionError\n"
        )

    def found(self, size: int) -> str:
        """Return what a search prints."""
        return self._filled(size, self._match)

    def _match(self) -> str:
        thing = self.random.choice(self._things)
        statement = self._statement(thing).partition("\n")[0]
        return f"{self.path()}:{self.random.randint(1, 400)}:{statement}\n"

    def patch(self, size: int) -> str:
        """Return a diff."""
        path = self.path()
        start = (
            f"diff --git a/{path} b/{path}\nindex {self.hexadecimal(7)}..{self.hexadecimal(7)} 100644\n"
            f"--- a/{path}\n+++ b/{path}\n"
        )
        return start + self._filled(max(size - len(start), 1), self._hunk)

    def _hunk(self) -> str:
        thing, at = self.random.choice(self._things), self.random.randint(1, 300)
        lines = [f"@@ -{at},7 +{at},7 @@ def {self.name()}({thing}):"]
        for mark in (" ", " ", "-", "+", " ", " "):
            statement = self._statement(thing)
            lines += [f"{mark}{line}" for line in statement.split("\n")]
        return "\n".join(lines) + "\n"

    def _filled(self, size: int, part: Callable[[], str]) -> str:
        parts, length = list[str](), 0
        while length < size:
            parts.append(part())
            length += len(parts[-1])
        return "".join(parts)[:size]
