"""Regular expressions as automata, against Python's own, where both languages mean the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from segue.engine.grammar.automaton import (
    Automaton,
    Budget,
    Expression,
    Length,
    Machine,
    Multiple,
    Not,
    TooLarge,
    determine,
)
from segue.engine.grammar.regex import Unsupported, literal, read

STEPS = 50_000
ALPHABET = 'ab01_ -"\\\n\té.'


def automaton(pattern: str, *, whole: bool = False, steps: int = STEPS) -> Automaton:
    budget = Budget(steps)
    return determine([Expression(read(pattern, whole=whole), budget)], budget)


def accepts(made: Automaton, text: str) -> bool:
    state = 0
    for char in text:
        found = [
            target
            for target, ranges in (made.edges[state] if made.edges else {}).items()
            if any(low <= ord(char) <= high for low, high in ranges)
        ]
        if not found:
            return False
        (state,) = found  # one way only
    return bool(made.ends and made.ends[state])


@contextmanager
def refusing_the_large() -> Iterator[None]:
    """Let hypothesis try something else where an automaton is too large."""
    try:
        yield
    except TooLarge:
        reject()


def in_python(pattern: str) -> re.Pattern[str]:
    """The same for Python: its `$` is also before a last line break, its dot matches more line ends."""
    return re.compile(pattern.replace("$", r"\Z"), re.ASCII)


atoms = st.one_of(
    st.sampled_from(["a", "b", "0", "_", " ", '"', r"\\", r"\.", r"\n", r"\t", "é", "-", r"\x61", r"\u0062", "."]),
    st.sampled_from(
        [r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab]", "[^a]", "[a-b0-9]", r"[\w-]", r"[^\s\"]", "[.-]"]
    ),
)


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,3}", "*?", "+?"])
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, quantifiers).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        inner.map(lambda part: f"(^{part}|{part}$)"),
    )


patterns = st.tuples(
    st.sampled_from(["", "^"]), st.recursive(atoms, larger, max_leaves=6), st.sampled_from(["", "$"])
).map("".join)
texts = st.text(ALPHABET, max_size=6)


@settings(max_examples=60)
@given(patterns, st.lists(texts, max_size=8), st.data())
def test_a_pattern_is_found_where_python_finds_it(pattern: str, tried: list[str], data: st.DataObject) -> None:
    expected = in_python(pattern)
    assume(not re.search(r"\(\^[^)]*\)[*+?{]", pattern))
    with refusing_the_large():
        made = automaton(pattern)
    likely = data.draw(st.lists(st.from_regex(expected, alphabet=st.sampled_from(ALPHABET)), max_size=4))
    for text in ["", *tried, *likely]:
        assert accepts(made, text) == bool(expected.search(text)), text


@settings(max_examples=60)
@given(patterns, patterns, st.integers(0, 3), st.integers(0, 3), st.lists(texts, min_size=1))
def test_several_demands_hold_at_once(one: str, other: str, least: int, more: int, tried: list[str]) -> None:
    budget = Budget(STEPS)
    machines: list[Machine] = [
        Expression(read(one), budget),
        Not(Expression(read(other), budget)),
        Length(least, least + more),
    ]
    with refusing_the_large():
        made = determine(machines, budget)
    for text in tried:
        expected = in_python(one).search(text) and not in_python(other).search(text)
        assert accepts(made, text) == (bool(expected) and least <= len(text) <= least + more), text


@settings(max_examples=60)
@given(patterns, st.integers(0, 3))
def test_an_end_can_be_reached_from_everywhere(pattern: str, most: int) -> None:
    """A model must not be led to where nothing is allowed."""
    budget = Budget(STEPS)
    with refusing_the_large():
        made = determine([Expression(read(pattern), budget), Length(0, most)], budget)
    reaching = {state for state, end in enumerate(made.ends) if end}
    for _ in made.edges:
        reaching |= {state for state, edges in enumerate(made.edges) if reaching & set(edges)}
    assert reaching == set(range(len(made.edges)))


@pytest.mark.parametrize("divisor", [1, 2, 7, 60])
def test_multiples(divisor: int) -> None:
    budget = Budget(STEPS)
    made = determine([Expression(read(r"-?\d{1,3}", whole=True), budget), Multiple(divisor)], budget)
    assert [n for n in range(-200, 200) if accepts(made, str(n))] == [n for n in range(-200, 200) if n % divisor == 0]


def test_a_literal_is_itself() -> None:
    budget = Budget(STEPS)
    made = determine([Expression(literal('a.*"'), budget)], budget)
    assert [text for text in ('a.*"', 'ab*"', "a.*", 'a.*""') if accepts(made, text)] == ['a.*"']


@pytest.mark.parametrize(
    ("pattern", "right", "wrong"),
    [
        (r"^\cJ\0\v\/$", "\n\0\v/", "J0v/"),
        (r"^[\b]$", "\b", "b"),
        (r"^\u{1F600}.$", "\U0001f600\U0001f600", "\U0001f600\u2028"),
        (r"^[\w-.]+$", "a-b.c", "a b"),
        (r"^(?<year>\d{4})$", "2024", "year"),
        (r"^{a}]$", "{a}]", "a"),
        (r"^\s$", "\ufeff", "\u200b"),
        (r"^[^\d\D]?$", "", "a"),
    ],
)
def test_what_python_reads_differently(pattern: str, right: str, wrong: str) -> None:
    made = automaton(pattern)
    assert accepts(made, right)
    assert not accepts(made, wrong)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)b",
        r"(a)\1",
        r"\ba",
        r"\p{L}",
        r"\ud83d",
        r"\u{110000}",
        "(?i)a",
        "(a",
        "a)",
        "[a",
        "[]",
        "[^]",
        "[b-a]",
        "*a",
        "a**",
        "^*",
        "a{2,1}",
        "a{1001}",
        "a{0,99999999999999999999}",
        "{2}",
        "\\",
        "(" * 60 + ")" * 60,
        "a" * 4001,
    ],
)
def test_what_cannot_be_read(pattern: str) -> None:
    with pytest.raises(Unsupported):
        read(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(((a{1000}){1000}){1000}){1000}",
        "((((){1000}){1000}){1000}){1000}",
        "(a|b)*a(a|b){20}",
        "^.{1,500}@.{1,500}$",
        "^(.{0,400}x){1,400}$",
        "(" + "|".join(f"[{chr(0x4E00 + 3 * n)}-{chr(0x4E01 + 3 * n)}]{{0,9}}" for n in range(200)) + ")*b(a|.){9}",
    ],
)
def test_what_takes_too_long_is_given_up(pattern: str) -> None:
    """Steps are counted, not time: this ends at once on any machine."""
    budget = Budget(STEPS)
    with pytest.raises(TooLarge):
        determine([Expression(read(pattern), budget)], budget)
    assert budget.left > -2000
