"""How the scripted model adds the search: a module, a command, tests that find a mistake, and a line of the README."""

from __future__ import annotations

from segue.upstreams.scripted_tasks.steps import (
    Find,
    TaskScript,
    TaskStep,
    edit,
    list_folder,
    read,
    run,
    search,
    write,
)

_MODULE = '''\
"""The search: which notes match some words, and which of them match best."""

TITLE_POINTS = 5
TAG_POINTS = 3
TEXT_POINTS = 1
TAG_PREFIX = "tag:"


def search(notes, words, limit=10):
    """Return the notes that match every word, the best match first."""
    wanted = [folded(word) for word in words]
    found = [(points(note, wanted), note) for note in notes if matches(note, wanted)]
    found.sort(key=lambda pair: (-pair[0], -pair[1].$stamp, pair[1].id))
    return [note for _, note in found[:limit]]


def folded(text):
    """Return a text so that case does not matter."""
    return text.lower()


def matches(note, wanted):
    """Return whether a note has every word."""
    tags = [folded(tag) for tag in note.tags]
    places = [folded(note.title), folded(note.text), *tags]
    return all(
        word.removeprefix(TAG_PREFIX) in tags
        if word.startswith(TAG_PREFIX)
        else any(word in place for place in places)
        for word in wanted
    )


def points(note, wanted):
    """Return how well a note matches."""
    title, text = folded(note.title), folded(note.text)
    tags = [folded(tag) for tag in note.tags]
    words = [word for word in wanted if not word.startswith(TAG_PREFIX)]
    return sum(
        TITLE_POINTS * title.count(word) + TEXT_POINTS * text.count(word) + TAG_POINTS * (word in tags)
        for word in words
    )
'''

_COMMAND = """\
def search_notes(store, options):
    notes = search(store, options.words, options.limit)
    for note in notes:
        print($line_of(note))
    if not notes:
        print("no note matches")
    return 0 if notes else 1


"""

_PARSER = """\
    command = commands.add_parser("search", help="search the notes")
    command.add_argument("words", nargs="+", metavar="WORD")
    command.add_argument("--limit", type=int, default=10)
    command.set_defaults(run=search_notes)

"""

_TESTS = """\
import unittest

from notes.model import $note
from notes.search import search
from tests.test_cli import EXAMPLE, $runner

NOTES = [
    $note(1, "Tea", "Green tea", ("kitchen",), 1, 10),
    $note(2, "Kitchen", "Clean it. Tea towels.", (), 1, 20),
    $note(3, "Streets", "Lange Straße", ("vienna",), 1, 20),
    $note(4, "teapots", "", ("kitchen",), 1, 20),
]


def found(*words, **options):
    return [note.id for note in search(NOTES, words, **options)]


class SearchTest(unittest.TestCase):
    def test_the_best_match_comes_first(self):
        self.assertEqual(found("tea"), [1, 4, 2])

    def test_of_equals_the_newer_one_comes_first(self):
        self.assertEqual(found("kitchen"), [2, 4, 1])

    def test_every_word_must_be_there(self):
        self.assertEqual(found("tea", "towels"), [2])

    def test_case_does_not_matter(self):
        self.assertEqual(found("TEAPOTS"), [4])
        self.assertEqual(found("STRASSE"), [3])

    def test_a_tag_is_matched_exactly(self):
        self.assertEqual(found("tag:kitchen"), [4, 1])
        self.assertEqual(found("tag:kit"), [])

    def test_the_limit(self):
        self.assertEqual(found("tea", limit=1), [1])


class CommandTest(unittest.TestCase):
    def test_it_prints_the_lines_of_list(self):
        self.assertEqual($runner(str(EXAMPLE), "search", "roses"), (0, ["   5  Garden #garden"]))

    def test_it_says_that_nothing_matches(self):
        self.assertEqual($runner(str(EXAMPLE), "search", "zeppelin"), (1, ["no note matches"]))
"""

_ROW = "| `python3 -m notes search WORD ... [--limit N]` | search the notes, the best match first |\n"
_DEMO = "python3 -m notes --file examples/notes.json search train vienna"

SCRIPT = TaskScript(
    "add-a-search-feature",
    (
        TaskStep(
            "I will look at the project first.",
            (
                list_folder(".", Find(r"cli\.py", "cli.py"), Find(r"test_cli\.py", "test_cli.py")),
                read(
                    "README.md",
                    Find(r"(?P<last_row>\| `python3 -m notes remove ID` \|.*\|\n)", "the last row of the table"),
                    Find(r"`(?P<tests>python3 run_tests\.py)`", "the command that runs the tests"),
                ),
            ),
        ),
        TaskStep(
            "The search needs the notes, the store and the command line. I read all three.",
            (
                read(
                    "notes/model.py",
                    Find(r"^class (?P<note>\w+):\n    \"\"\"One note", "the class of a note"),
                    Find(r"^    (?P<stamp>changed_at): int", "the time of the last change"),
                ),
                read("notes/store.py", Find(r"def __iter__\(self\)", "how the store gives its notes")),
                read(
                    "notes/cli.py",
                    Find(r"(?P<model_import>from notes\.model import .*\n)", "its imports"),
                    Find(r"def (?P<line_of>\w+)\(note\):", "how a note is printed"),
                    Find(r"(?P<show>def show\(store, options\):\n)", "the command show"),
                    Find(r"(?P<show_parser>    command = commands\.add_parser\(\"show\".*\n)", "the parser of show"),
                ),
            ),
        ),
        TaskStep(
            "Notes have `$stamp`, and `$line_of` prints one. How are the commands tested, and what is in the example?",
            (
                read("tests/test_cli.py", Find(r"^def (?P<runner>\w+)\(path, \*arguments\)", "how a command is run")),
                read("examples/notes.json", Find(r'"title": "Garden"', "the note on the garden")),
            ),
        ),
        TaskStep(
            "I write the search itself. It is a function of notes and words, and knows nothing of the command line.",
            (write("notes/search.py", _MODULE),),
        ),
        TaskStep(
            "Now the command: its import, its function before `show`, and its parser.",
            (
                edit("notes/cli.py", "$model_import", "${model_import}from notes.search import search\n"),
                edit("notes/cli.py", "$show", _COMMAND + "$show"),
                edit("notes/cli.py", "$show_parser", _PARSER + "$show_parser"),
            ),
        ),
        TaskStep("And tests of the search and of the command.", (write("tests/test_search.py", _TESTS),)),
        TaskStep(
            "I run all tests.",
            (
                run(
                    "$tests",
                    1,
                    Find(
                        r"FAIL: tests\.test_search\.\w+\.(?P<test>\w+)\n  (?P<place>[\w/]+\.py:\d+): (?P<assertion>.+)",
                        "a test of the search that fails",
                    ),
                ),
            ),
        ),
        TaskStep(
            "`$test` fails at $place: `$assertion`. The upper case of `ß` is `SS`, and `lower` does not undo that. "
            "Where do I fold the case?",
            (
                search("lower()", "notes", Find(r"notes/search\.py:(?P<at>\d+):(?P<fold>.+)", "where case is folded")),
                read("notes/search.py", Find(r"return text\.lower\(\)", "the line that folds the case")),
            ),
        ),
        TaskStep(
            "Line $at. `casefold` is made for comparing without case, in every script.",
            (edit("notes/search.py", "$fold", "    return text.casefold()"),),
        ),
        TaskStep(
            "Again.",
            (run("$tests", 0, Find(r"(?P<count>\d+) tests, 0 failed", "no failure")),),
        ),
        TaskStep(
            "All $count tests pass. I try the command on the example, and add it to the README.",
            (
                run(_DEMO, 0, Find(r" +4  (?P<best>.+)", "the best match")),
                edit("README.md", "$last_row", "$last_row" + _ROW),
            ),
        ),
        TaskStep(
            "The search is there. `search()` in `notes/search.py` returns the notes that have every word, best match "
            "first; `python3 -m notes search` prints them, with `--limit`. In the example, `train vienna` finds "
            "`$best` first. tests/test_search.py has eight tests, one of which found that `ß` and `SS` did not match; "
            "the README names the command. All $count tests pass."
        ),
    ),
)
