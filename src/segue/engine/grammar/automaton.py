"""Automata that decide character by character whether a text is allowed: pure.

Whatever is asked of one text at once (a pattern, another one, a length, not to be one of these names) is a `Machine`
each, and `determine` makes one deterministic automaton of them, in which every state can still come to an end. A model
that writes by it can do so in exactly one way, which is what keeps the choice of a token fast. Such automata can be far
larger than what they are made of, so whoever makes one gives a `Budget`, which counts steps and not time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Protocol, TypeAlias

import msgspec

from segue.engine.grammar.regex import ALL, Anchor, Chars, Choice, Node, Ranges, Repeat, Series, joined

#: A state of a machine. A set of numbers for `Expression`, a number for the others, None for `Not` when all is well.
State: TypeAlias = frozenset[int] | int | None
_MOST_STATES = 1500
_SURROGATES = (0xD800, 0xE000)


class TooLarge(Exception):
    """The automaton would be larger, or take longer to make, than is allowed."""


class Budget:
    """How many steps may still be taken."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int = 1) -> None:
        """Take steps; raise `TooLarge` when none are left."""
        self.left -= steps
        if self.left < 0:
            raise TooLarge


class Machine(Protocol):
    """What `determine` makes automata of."""

    @property
    def start(self) -> State:
        """The first state."""
        ...

    def cuts(self, state: State, /) -> Iterable[int]:
        """Return the code points from which on another step may be taken than before."""
        ...

    def step(self, state: State, char: int, /) -> tuple[State] | None:
        """Return the state behind a character, None if it is not allowed."""
        ...

    def accepts(self, state: State) -> bool:
        """Tell whether the text may end here."""
        ...


class Expression:
    """Texts that an expression matches from start to end. A state is the set of places where the match may be."""

    def __init__(self, node: Node, budget: Budget) -> None:
        self._budget = budget
        self._chars: list[Ranges] = []  # of each place: what leads on from there
        self._next: list[tuple[int, ...]] = []  # where to; without characters, at once
        self._anchors: dict[int, bool] = {}  # the places that lead on at one end of the text only
        self._end = self._place((), ())
        self.start: State = self._reach([self._build(node, self._end)], at_start=True)

    def cuts(self, state: State) -> Iterable[int]:
        """See `Machine`."""
        for place in _places(state):
            for low, high in self._chars[place]:
                yield low
                yield high + 1

    def step(self, state: State, char: int) -> tuple[State] | None:
        """See `Machine`."""
        places = _places(state)
        self._budget.spend(len(places))
        reached = [self._next[place][0] for place in places if _holds(self._chars[place], char)]
        return (self._reach(reached),) if reached else None

    def accepts(self, state: State) -> bool:
        """See `Machine`."""
        return self._end in self._reach(_places(state), at_end=True)

    def _place(self, chars: Ranges, following: tuple[int, ...]) -> int:
        self._budget.spend()
        self._chars.append(chars)
        self._next.append(following)
        return len(self._chars) - 1

    def _build(self, node: Node, following: int) -> int:
        """Add the places of a node that leads to `following`; return the first."""
        self._budget.spend()
        match node:
            case Chars(ranges):
                return self._place(ranges, (following,) if ranges else ())
            case Series(parts):
                for part in reversed(parts):
                    following = self._build(part, following)
                return following
            case Choice(parts):
                return self._place((), tuple(self._build(part, following) for part in parts))
            case Anchor(end):
                place = self._place((), (following,))
                self._anchors[place] = end
                return place
            case Repeat(part, least, most):
                return self._build_repeat(part, least, most, following)

    def _build_repeat(self, part: Node, least: int, most: int | None, following: int) -> int:
        if most is None:
            again = self._place((), ())
            self._next[again] = (self._build(part, again), following)
            first = again
        else:
            first = following
            for _ in range(most - least):
                first = self._place((), (self._build(part, first), following))
        for _ in range(least):
            first = self._build(part, first)
        return first

    def _reach(self, places: Iterable[int], *, at_start: bool = False, at_end: bool = False) -> frozenset[int]:
        """Return the places that can be reached without a character, but for those that only lead on."""
        waiting = list(places)
        seen = set(waiting)
        while waiting:
            place = waiting.pop()
            self._budget.spend()
            if self._chars[place] or not (
                at_end if self._anchors.get(place) else at_start or place not in self._anchors
            ):
                continue
            for following in self._next[place]:
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return frozenset(
            place for place in seen if self._chars[place] or place == self._end or self._anchors.get(place)
        )


class Length:
    """Texts of so many characters. A state is how many there are, as far as that matters."""

    def __init__(self, least: int, most: int | None) -> None:
        self._least, self._most = least, most
        self.start: State = 0

    def cuts(self, _state: State) -> Iterable[int]:
        """See `Machine`."""
        return ()

    def step(self, state: State, _char: int) -> tuple[State] | None:
        """See `Machine`."""
        count = _number(state) + 1
        if self._most is None:
            return (min(count, self._least),)
        return (count,) if count <= self._most else None

    def accepts(self, state: State) -> bool:
        """See `Machine`."""
        return _number(state) >= self._least


class Multiple:
    """Whole numbers that a divisor divides. A state is the remainder of what was read."""

    def __init__(self, divisor: int) -> None:
        self._divisor = divisor
        self.start: State = 0

    def cuts(self, _state: State) -> Iterable[int]:
        """See `Machine`."""
        return range(ord("0"), ord("9") + 2)

    def step(self, state: State, char: int) -> tuple[State] | None:
        """See `Machine`."""
        if chr(char) == "-":
            return (state,)
        return ((_number(state) * 10 + char - ord("0")) % self._divisor,) if chr(char) in "0123456789" else None

    def accepts(self, state: State) -> bool:
        """See `Machine`."""
        return state == 0


class Not:
    """Texts that another machine does not accept."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.start = machine.start

    def cuts(self, state: State) -> Iterable[int]:
        """See `Machine`."""
        return () if state is None else self._machine.cuts(state)

    def step(self, state: State, char: int) -> tuple[State] | None:
        """See `Machine`."""
        return (None,) if state is None else self._machine.step(state, char) or (None,)

    def accepts(self, state: State) -> bool:
        """See `Machine`."""
        return state is None or not self._machine.accepts(state)


class Automaton(msgspec.Struct, frozen=True):
    """A deterministic automaton: of each state, what leads where, and whether the text may end. The first is state 0.

    Without states it accepts nothing.
    """

    edges: Sequence[Mapping[int, Ranges]]
    ends: Sequence[bool]


def determine(machines: Sequence[Machine], budget: Budget) -> Automaton:
    """Return an automaton for what all the machines accept; raise `TooLarge` if it cannot be had for the budget."""
    states = {tuple(machine.start for machine in machines): 0}
    edges: list[dict[int, Ranges]] = []
    ends = []
    waiting = list(states)
    while len(edges) < len(waiting):
        state = waiting[len(edges)]
        found: dict[int, list[tuple[int, int]]] = {}
        for low, high in _pieces(machines, state):
            budget.spend(len(machines))
            following = _step(machines, state, low)
            if following is None:
                continue
            if following not in states:
                if len(states) == _MOST_STATES:
                    raise TooLarge
                states[following] = len(states)
                waiting.append(following)
            found.setdefault(states[following], []).append((low, high))
        edges.append({target: joined(ranges) for target, ranges in found.items()})
        ends.append(all(machine.accepts(part) for machine, part in zip(machines, state, strict=True)))
    return _pruned(edges, ends)


def _pieces(machines: Sequence[Machine], state: tuple[State, ...]) -> Iterable[tuple[int, int]]:
    """Divide all characters so that those of a piece lead to the same state."""
    cuts = {low for low, _ in ALL} | {high + 1 for _, high in ALL}
    for machine, part in zip(machines, state, strict=True):
        cuts.update(machine.cuts(part))
    points = sorted(cuts)
    for low, after in pairwise(points):
        if not _SURROGATES[0] <= low < _SURROGATES[1]:
            yield low, after - 1


def _step(machines: Sequence[Machine], state: tuple[State, ...], char: int) -> tuple[State, ...] | None:
    following: list[State] = []
    for machine, part in zip(machines, state, strict=True):
        reached = machine.step(part, char)
        if reached is None:
            return None
        following += reached
    return tuple(following)


def _pruned(edges: Sequence[Mapping[int, Ranges]], ends: Sequence[bool]) -> Automaton:
    """Leave out the states from which no end can be reached."""
    before: list[list[int]] = [[] for _ in edges]
    for state, leads in enumerate(edges):
        for target in leads:
            before[target].append(state)
    living = {state for state, end in enumerate(ends) if end}
    waiting = list(living)
    while waiting:
        for state in before[waiting.pop()]:
            if state not in living:
                living.add(state)
                waiting.append(state)
    if 0 not in living:
        return Automaton((), ())
    number = {state: index for index, state in enumerate(sorted(living))}
    kept = [{number[target]: ranges for target, ranges in edges[state].items() if target in living} for state in number]
    return Automaton(kept, [ends[state] for state in number])


def _holds(ranges: Ranges, char: int) -> bool:
    index = bisect_right(ranges, char, key=itemgetter(0)) - 1
    return index >= 0 and char <= ranges[index][1]


def _places(state: State) -> frozenset[int]:
    assert isinstance(state, frozenset), "this state is of an expression"
    return state


def _number(state: State) -> int:
    assert isinstance(state, int), "this state is a number"
    return state
