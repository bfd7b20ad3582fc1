"""The tables of the dialects in the documentation, made from the tables that the dialects run on.

Not here: the parts that come from other code (`generate_docs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segue.dialects.chat.door_request import DOOR_FIELDS
from segue.dialects.chat.request import CHAT_ITEMS
from segue.dialects.chat.settings import chat_fields
from segue.dialects.chat.stream import FINISH
from segue.dialects.messages.request import MESSAGES_ITEMS
from segue.dialects.messages.settings import MESSAGES_FIELDS
from segue.dialects.messages.stream import STOP
from segue.dialects.provider_families import FAMILIES
from segue.dialects.provider_profiles import PLAIN
from segue.dialects.responses.request import RESPONSES_FIELDS, RESPONSES_ITEMS
from segue.dialects.rules import FATES, OTHERS, Field, Rule
from segue.dialects.stream_end import FAILED
from segue.engine.settings import LOCAL_FIELDS
from segue.protocol.requests import Settings
from tools.markdown import table

_COLUMNS = ("`chat`", "`chat` at OpenAI's own API", "`messages`", "`responses`", "the local model")


def fates() -> str:
    """Write what the words of the tables mean."""
    return table(("word", "meaning"), [(f"**{fate}**", meaning) for fate, meaning in FATES.items()])


def settings() -> str:
    """Write what becomes of each setting of a request."""
    dialects: Sequence[Mapping[str, Field]] = (
        chat_fields(PLAIN),
        chat_fields(FAMILIES["openai"].profile),
        MESSAGES_FIELDS,
        RESPONSES_FIELDS,
        LOCAL_FIELDS,
    )
    names = list(RESPONSES_FIELDS)
    assert all(set(names) == set(fields) for fields in dialects), "all tables have the same rows"
    rows = [
        (name if name == OTHERS else f"`{name}`", *(_cell(fields[name].rule) for fields in dialects))
        for name in sorted(names, key=_place)
    ]
    return table(("setting", *_COLUMNS), rows)


def items() -> str:
    """Write what becomes of the items of a history and of their parts."""
    assert CHAT_ITEMS.keys() == MESSAGES_ITEMS.keys(), "both tables have the same rows"
    rest = RESPONSES_ITEMS["everything else"]
    rows = [
        (name, *(_cell(rule) for rule in (CHAT_ITEMS[name], MESSAGES_ITEMS[name], RESPONSES_ITEMS.get(name, rest))))
        for name in CHAT_ITEMS
    ]
    return table(("item or part", "`chat`", "`messages`", "`responses`"), rows)


def chat_door() -> str:
    """Write what becomes of each field of a request of Chat Completions."""
    rows = [(name if name == OTHERS else f"`{name}`", _cell(rule)) for name, rule in DOOR_FIELDS.items()]
    return table(("field", "what becomes of it"), rows)


def stops() -> str:
    """Write what the reasons mean for which an upstream stops."""
    reasons = [("`chat`", FINISH), ("`messages`", STOP)]
    rows = [
        (name, f"`{reason}`", "`completed`" if cut is None else f"`incomplete`, `{cut}`")
        for name, table in reasons
        for reason, cut in table.items()
    ]
    rows += [(name, f"`{reason}`", "`failed`") for name, _ in reasons for reason in sorted(FAILED)]
    return table(("dialect", "reason", "status of the response"), rows)


def _cell(rule: Rule) -> str:
    return f"**{rule.fate}**. {rule.note}" if rule.note else f"**{rule.fate}**"


def _place(name: str) -> int:
    """Return where a setting stands in the table: as in a request, and what is unknown last."""
    known = Settings.__struct_fields__
    return known.index(name) if name in known else len(known)
