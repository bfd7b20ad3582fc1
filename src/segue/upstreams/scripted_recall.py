"""What the scripted model knows of code words: a question that only a kept history can answer. Pure.

A conversation tells two words in one message and asks for them in later ones. `segue bench endpoint` asks any server
so; the scripted model answers as a real one would. Not here: judging an answer (`segue.bench.endpoint.verdicts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

ASK_FIRST = "What is the first code word? Answer with the word alone."
ASK_SECOND = "What is the second code word? Answer with the word alone."

_QUESTIONS = {ASK_FIRST.encode(): 1, ASK_SECOND.encode(): 2}
_MARK = b"code word? Answer"
_TOLD = re.compile(rb"Two code words: the first is ([a-z0-9-]{1,40}), the second is ([a-z0-9-]{1,40})\.")


def tell_words(first: str, second: str) -> str:
    """Return the sentence that tells the words."""
    return f"Two code words: the first is {first}, the second is {second}. You will be asked for them later."


def recalled_word(newest: Sequence[bytes], items: Callable[[], Iterable[bytes]]) -> str | None:
    """Return the word that the newest item asks for, from the items of the whole history; None if it asks for none."""
    if not newest or _MARK not in newest[-1]:
        return None
    number = next((number for question, number in _QUESTIONS.items() if question in newest[-1]), None)
    if number is None:
        return None
    found = next((told for item in items() if (told := _TOLD.search(item))), None)
    return None if found is None else found[number].decode()
