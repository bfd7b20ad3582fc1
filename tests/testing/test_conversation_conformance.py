"""The checks of conversations notice a store that breaks a rule. The stores themselves: `test_store_conformance`."""

from __future__ import annotations

import pytest

from segue.history.records import Record
from segue.protocol.ids import ConversationId
from segue.stores.memory import MemoryStore
from segue.testing.conversation_conformance import CONVERSATION_CHECKS, two_that_move_at_once_do_not_both_win


class _Careless(MemoryStore):
    """Does not look where a conversation points."""

    async def append_to_conversation(self, conversation_id: ConversationId, record: Record) -> None:
        assert conversation_id is not None
        await self.append(record)


async def test_a_careless_store_is_found_out() -> None:
    with pytest.raises(AssertionError):
        await two_that_move_at_once_do_not_both_win(_Careless())


def test_each_check_has_a_sentence_of_its_own() -> None:
    texts = [check.__doc__ for check in CONVERSATION_CHECKS]
    assert None not in texts
    assert len(set(texts)) == len(texts)
