"""Thoughts of another provider in a request that passes through."""

from __future__ import annotations

import json
from typing import Any

from segue.dialects.messages.foreign_thoughts import without_foreign_thoughts
from segue.dialects.sealed_reasoning import seal

Json = dict[str, Any]

SEALED = seal("chat.example", "{}")
OWN: Json = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
FOREIGN: Json = {"type": "thinking", "thinking": "Hm.", "signature": SEALED}
REDACTED: Json = {"type": "redacted_thinking", "data": SEALED}
TEXT: Json = {"type": "text", "text": f'"{SEALED}'}
USER = b'{"role":"user",  "content":"hi"}'


def said(*blocks: Json) -> bytes:
    return json.dumps({"role": "assistant", "content": blocks}).encode()


def test_blocks_that_another_provider_has_sealed_are_left_out() -> None:
    messages = [USER, said(OWN, FOREIGN, REDACTED, TEXT), said(OWN)]
    cleaned = without_foreign_thoughts(messages)
    assert cleaned is not None
    assert (cleaned[0], cleaned[2]) == (USER, said(OWN)), "every other message stays as it was written"
    assert json.loads(cleaned[1]) == {"role": "assistant", "content": [OWN, TEXT]}
    assert without_foreign_thoughts([USER, said(REDACTED)]) == [USER], "a message of nothing else is none"


def test_where_there_are_none_nothing_is_written_anew() -> None:
    assert without_foreign_thoughts([USER, said(OWN)]) is None
    quoted = [said({"type": "text", "text": SEALED}), b'{"role":"user","content":"%b"}' % SEALED.encode()[:7]]
    assert without_foreign_thoughts(quoted) is None
    unreadable = [b'{"role":"user","content":"%b"}' % SEALED.encode().replace(b'"', b""), said(FOREIGN)]
    assert without_foreign_thoughts(unreadable) == [unreadable[0]]
