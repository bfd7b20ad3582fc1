"""What is remembered of refusals: by model, added up, and never more than so many models."""

from __future__ import annotations

from segue.upstreams.learned_refusals import MAX_MODELS, MAX_NAME_CHARS, LearnedRefusals

USAGE, KEY = frozenset({"stream_options"}), frozenset({"prompt_cache_key"})


def test_each_model_has_its_own_and_they_add_up() -> None:
    learned = LearnedRefusals()
    assert learned.fields_of("a") == frozenset()
    learned.learn("a", USAGE)
    learned.learn("a", KEY)
    assert learned.fields_of("a") == USAGE | KEY
    assert learned.fields_of("b") == frozenset()


def test_the_least_recently_used_model_is_forgotten_first() -> None:
    learned = LearnedRefusals(2)
    for name in ("a", "b"):
        learned.learn(name, USAGE)
    learned.fields_of("a")
    learned.learn("c", USAGE)
    assert [bool(learned.fields_of(name)) for name in "abc"] == [True, False, True]


def test_a_model_that_learns_more_takes_nobodys_place() -> None:
    learned = LearnedRefusals(2)
    for name, fields in (("a", USAGE), ("b", USAGE), ("b", KEY)):
        learned.learn(name, fields)
    assert learned.fields_of("a") == USAGE


def test_clients_cannot_fill_the_memory_with_names() -> None:
    learned = LearnedRefusals()
    for number in range(MAX_MODELS + 10):
        learned.learn(f"m{number}", USAGE)
    assert [bool(learned.fields_of(f"m{number}")) for number in (0, 9, 10, MAX_MODELS + 9)] == [
        False,
        False,
        True,
        True,
    ]
    learned.learn("n" * MAX_NAME_CHARS, USAGE)
    learned.learn("n" * (MAX_NAME_CHARS + 1), USAGE)
    assert learned.fields_of("n" * MAX_NAME_CHARS) == USAGE
    assert learned.fields_of("n" * (MAX_NAME_CHARS + 1)) == frozenset()
