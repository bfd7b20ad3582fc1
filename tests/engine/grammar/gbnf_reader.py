"""A reader of grammars that tells whether they allow a text: what the engine's own does, in little, without a model.

It knows the part of GBNF that is written here, and fails on anything else.
"""

from __future__ import annotations

import re
from random import Random
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[a-zA-Z0-9-]+(?!\s*::=))|"(?P<text>(?:[^"\\]|\\.)*)"|\[(?P<set>(?:[^\]\\]|\\.)*)\]
    |(?P<sign>[()|*+?])|\{(?P<least>\d+)(?P<comma>,)?(?P<most>\d*)\})""",
    re.VERBOSE | re.DOTALL,
)
_CHAR = re.compile(r"\\(?:x(..)|u(.{4})|U(.{8})|(.))|(.)", re.DOTALL)
_MEANT = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}

#: What is still to be matched: a node and what follows it.
Stack = Any


class Gbnf:
    """A grammar. A node is ("set", codes, negated), ("rule", name), ("seq", nodes), ("any", nodes), ("times", …)."""

    def __init__(self, grammar: str) -> None:
        self.rules: dict[str, Any] = {}
        for line in grammar.splitlines():
            name, body = line.split(" ::= ", 1)
            assert name not in self.rules, f"{name} is there twice"
            self.rules[name] = _Reader(body).read()

    def allows(self, text: str) -> bool:
        """Tell whether the whole text is allowed."""
        stacks = self._open({(("rule", "root"), None)})
        for char in text:
            stacks = self._open({rest for (node, rest) in filter(None, stacks) if _holds(node, char)})
            if not stacks:
                return False
        return None in stacks

    def write(self, random: Random, most: int = 300) -> str | None:
        """Write a text that is allowed, taking any way; None if it comes to no end."""
        text = ""
        stacks = self._open({(("rule", "root"), None)})
        while len(text) < most:
            stack = random.choice(sorted(stacks, key=repr))
            if stack is None:
                return text
            text += _any_char(stack[0], random)
            stacks = self._open({rest for (node, rest) in filter(None, stacks) if _holds(node, text[-1])})
        return None

    def _open(self, stacks: set[Stack]) -> set[Stack]:
        """Replace what stands for other things, until each stack begins with characters or is at the end."""
        waiting, seen, done = list(stacks), set(stacks), set()
        while waiting:
            stack = waiting.pop()
            if stack is None or stack[0][0] == "set":
                done.add(stack)
                continue
            for following in self._instead(*stack):
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return done

    def _instead(self, node: Any, rest: Stack) -> list[Stack]:  # noqa: ANN401 - any kind of node
        match node:
            case ("rule", name):
                return [(self.rules[name], rest)]
            case ("any", nodes):
                return [(one, rest) for one in nodes]
            case ("seq", nodes):
                for one in reversed(nodes):
                    rest = (one, rest)
                return [rest]
            case ("times", one, least, most):
                again = ("times", one, max(0, least - 1), most if most is None else most - 1)
                more = [] if most == 0 else [(one, (again, rest))]
                return more if least else [*more, rest]
            case _:
                raise AssertionError(node)


class _Reader:
    def __init__(self, body: str) -> None:
        self._tokens = []
        at = 0
        while at < len(body.rstrip()):
            found = _TOKEN.match(body, at)
            assert found is not None, f"cannot be read: {body[at : at + 60]!r}"
            self._tokens.append(found)
            at = found.end()
        self._at = 0

    def read(self) -> Any:  # noqa: ANN401 - any kind of node
        node = self._any()
        assert self._at == len(self._tokens), "a group is closed that was not opened"
        return node

    def _sign(self) -> str | None:
        return self._tokens[self._at]["sign"] if self._at < len(self._tokens) else ")"

    def _any(self) -> Any:  # noqa: ANN401 - any kind of node
        nodes = [self._seq()]
        while self._sign() == "|":
            self._at += 1
            nodes.append(self._seq())
        return ("any", tuple(nodes))

    def _seq(self) -> Any:  # noqa: ANN401 - any kind of node
        nodes: list[Any] = []
        while self._sign() not in {"|", ")"}:
            token = self._tokens[self._at]
            self._at += 1
            if token["sign"] == "(":
                nodes.append(self._any())
                assert self._tokens[self._at]["sign"] == ")", "a group is not closed"
                self._at += 1
            elif token["name"] is not None:
                nodes.append(("rule", token["name"]))
            elif token["text"] is not None:
                nodes.append(("seq", tuple(("set", ((code, code),), False) for code in _codes(token["text"]))))
            elif token["set"] is not None:
                nodes.append(_set(token["set"]))
            else:
                nodes[-1] = ("times", nodes[-1], *_times(token))
        return ("seq", tuple(nodes))


def _times(token: re.Match[str]) -> tuple[int, int | None]:
    if token["sign"]:
        return int(token["sign"] == "+"), 1 if token["sign"] == "?" else None
    least = int(token["least"])
    return least, least if token["comma"] is None else int(token["most"]) if token["most"] else None


def _codes(text: str) -> list[int]:
    codes = []
    for found in _CHAR.finditer(text):
        two, four, eight, meant, plain = found.groups()
        codes.append(int(two or four or eight, 16) if two or four or eight else ord(_MEANT[meant] if meant else plain))
    return codes


def _set(text: str) -> Any:  # noqa: ANN401 - any kind of node
    negated = text.startswith("^")
    ranges, codes, hyphens = [], [], []
    for found in _CHAR.finditer(text.removeprefix("^")):
        codes += _codes(found[0])
        hyphens.append(found[0] == "-")
    while codes:
        reaches = len(codes) > 2 and hyphens[1]
        ranges.append((codes[0], codes[2] if reaches else codes[0]))
        del codes[: 3 if reaches else 1], hyphens[: 3 if reaches else 1]
    return ("set", tuple(ranges), negated)


def _any_char(node: Any, random: Random) -> str:  # noqa: ANN401 - any kind of node
    _, ranges, negated = node
    if negated:
        return random.choice([char for char in "aZ0-:é\u2028\U0001f600" if _holds(node, char)])
    low, high = random.choice(ranges)
    return chr(random.choice([low, high, random.randint(low, high)]))


def _holds(node: Any, char: str) -> bool:  # noqa: ANN401 - any kind of node
    _, ranges, negated = node
    found = any(low <= ord(char) <= high for low, high in ranges)
    return found is not negated
