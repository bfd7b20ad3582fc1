"""The warnings about what was left out of a history. Each names a kind of thing, and a response has it once at most.

Not here: warnings about settings (`rules`), and about a reply (`stream_end`).
"""

from __future__ import annotations

from segue.protocol.item_types import ContentPart, ReasoningItem
from segue.protocol.problems import quoted

FOREIGN_REASONING = (
    "Reasoning that this provider did not make, or did not finish, was left out: it cannot be used here."
)
THOUGHTS_LEFT_OUT = "Reasoning was left out: this model cannot be sent it in a turn in which it does not think."
BARE_REASONING = (
    "Reasoning without 'encrypted_content' was left out: it cannot be used. To send everything again, ask for it with "
    "include: ['reasoning.encrypted_content']."
)
ANNOTATIONS_LEFT_OUT = "Annotations of messages were left out: this API has none."
PHASE_LEFT_OUT = "'phase' of messages was left out: this API has none."
DETAIL_LEFT_OUT = "'detail' of images was left out: this API has none."
BROKEN_ARGUMENTS = (
    "Arguments of a call that are no JSON object were sent as the text they are, or with a broken character replaced."
)

UNANSWERED_CALL = "A call without an output was sent with a note in place of one: without one, it would be refused."
LATE_OUTPUT = (
    "An output that does not follow its call was sent as a text of the user's: as an output it would be refused."
)


def reasoning_left_out(reasoning: ReasoningItem) -> str:
    """Return the warning about reasoning that this provider cannot use."""
    return FOREIGN_REASONING if reasoning.encrypted_content else BARE_REASONING


def item_left_out(kind: str) -> str:
    """Return the warning about items of a type that the API does not have."""
    return f"Items of type {quoted(kind)} were left out: this API has nothing like them."


def field_left_out(name: str, kind: str) -> str:
    """Return the warning about a field that the API does not have."""
    return f"{quoted(name)} of items of type {quoted(kind)} was left out: this API has nothing like it."


def part_left_out(part: ContentPart) -> str:
    """Return the warning about a part that the API cannot take."""
    return f"Parts {_described(part)} were left out: this API cannot take them. A note stands in their place."


def part_as_text(part: ContentPart) -> str:
    """Return the warning about a part of which only the text was sent."""
    return f"Parts {_described(part)} were sent as their text: this API has nothing like them."


def in_place_of(part: ContentPart) -> str:
    """Return the note that the model reads in place of a part."""
    name = f" {quoted(part.filename)}" if part.filename else ""
    return f"[a part of type {part.type[:40]}{name} stood here and could not be passed on]"


def _described(part: ContentPart) -> str:
    sources = (("image_url", part.image_url), ("file_id", part.file_id), ("file_url", part.file_url))
    source = next((name for name, value in sources if value is not None), None)
    return f"of type {quoted(part.type)}" + ("" if source is None else f" with {source}")
