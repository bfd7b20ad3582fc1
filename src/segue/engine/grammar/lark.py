"""The text of a grammar: rules in the library's dialect of Lark, with JSON schemas in them. Pure.

Not here: what of a schema is enforced (`schema_normalizer`), and what becomes of the text (`token_matcher`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from segue.engine.grammar.json_schema import Schema
from segue.engine.grammar.schema_normalizer import SchemaNormalizer
from segue.protocol.request_size import go_on

#: JSON with at most one blank behind a comma and a colon, and none elsewhere.
_SPACING = {"item_separator": ", ?", "key_separator": ": ?", "whitespace_flexible": False, "lenient": True}


class LarkGrammar:
    """Rules under construction. `add_schema` returns the name of a rule; `text` is the grammar with `start` on top.

    The limits of `SchemaNormalizer` are for all its schemas together.
    """

    def __init__(self, pause: Callable[[], None] = go_on) -> None:
        self._normalizer = SchemaNormalizer(pause)
        self._names: dict[str, str] = {}  # of rules, by their bodies

    def add_schema(self, schema: Schema) -> str:
        """Add what a schema allows; its references start from itself. Raises `GrammarError`."""
        made: dict[str, Any] = {"x-guidance": _SPACING, **self._normalizer.normalize(schema)}
        return self.add_rule(f"%json {json.dumps(made)}")

    def add_rule(self, body: str) -> str:
        """Add a rule of one's own."""
        return self._names.setdefault(body, f"r{len(self._names)}")

    def text(self, root: str) -> str:
        """Write the grammar; `root` is the body of its first rule."""
        return "\n".join([f"start: {root}", *(f"{name}: {body}" for body, name in self._names.items())]) + "\n"


def literal(text: str) -> str:
    """Write a text as a terminal of the grammar."""
    return json.dumps(text)
