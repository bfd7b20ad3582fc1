"""Slot pinning: a conversation keeps its slot as long as it can, and no turn gets the slot of a running one."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, precondition, rule

from segue.protocol.ids import ResponseId
from segue.upstreams.conversation_key import ConversationKey
from segue.upstreams.slots import SlotTable
from tests.strategies import examples


class Talks:
    """A table of slots, and turns of named conversations."""

    def __init__(self, count: int) -> None:
        self.table = SlotTable(count)

    def begin(self, chain: str, turn: str = "1", *, after: str | None = None, tenant: str = "ann") -> int:
        parent = None if after is None else ResponseId(chain + after)
        return self.table.take(ConversationKey(tenant, chain), ResponseId(chain + turn), parent)

    def run(self, chain: str, turn: str = "1", *, after: str | None = None, tenant: str = "ann") -> int:
        slot = self.begin(chain, turn, after=after, tenant=tenant)
        self.table.release(slot)
        return slot


def test_new_conversations_take_the_free_slots_in_their_order() -> None:
    talks = Talks(3)
    assert [talks.run(chain) for chain in "abc"] == [0, 1, 2]


def test_a_conversation_keeps_its_slot() -> None:
    talks = Talks(2)
    for turn in "1234":
        before = None if turn == "1" else str(int(turn) - 1)
        assert [talks.run(chain, turn, after=before) for chain in "ab"] == [0, 1]


def test_who_rested_longest_gives_way() -> None:
    talks = Talks(2)
    for chain, after in (("a", None), ("b", None), ("a", "1")):
        talks.run(chain, "2" if after else "1", after=after)
    assert talks.run("c") == 1
    assert talks.run("a", "3", after="2") == 0


def test_a_running_turn_does_not_give_way() -> None:
    """It does not matter how long ago it began."""
    talks = Talks(2)
    assert talks.begin("a") == 0
    assert [talks.run(chain) for chain in "bcd"] == [1, 1, 1]
    talks.table.release(0)
    assert talks.run("a", "2", after="1") == 0


def test_a_fork_shares_the_slot_of_its_parent_while_that_is_idle() -> None:
    """The slot's cache holds the prefix that both have."""
    talks = Talks(3)
    talks.run("a")
    talks.run("a", "2", after="1")
    assert talks.run("a", "3", after="1") == 0


def test_branches_that_run_at_once_have_a_slot_each_and_find_it_again() -> None:
    talks = Talks(4)
    talks.run("a")
    slots = {turn: talks.begin("a", turn, after="1") for turn in "234"}
    assert sorted(slots.values()) == [0, 1, 2]
    for slot in slots.values():
        talks.table.release(slot)
    assert {turn: talks.run("a", turn + turn, after=turn) for turn in "324"} == slots


def test_a_turn_that_failed_is_tried_again_where_it_was() -> None:
    """Another branch has run since."""
    talks = Talks(3)
    talks.run("a")
    failing, other = talks.begin("a", "2", after="1"), talks.begin("a", "3", after="1")
    talks.table.release(failing)
    talks.table.release(other)
    talks.run("a", "4", after="3")
    assert talks.run("a", "5", after="1") == failing


def test_tenants_do_not_share_a_conversation() -> None:
    talks = Talks(2)
    assert talks.run("a", tenant="ann") == 0
    assert talks.run("a", "2", after="1", tenant="bob") == 1


def test_a_history_that_is_sent_again_finds_its_conversation() -> None:
    """It is found by its prefix. A new conversation with the same prefix gets its own slot, like another tenant's."""
    table = SlotTable(3)

    def run(chain: str, start: bytes, *, replayed: bool, tenant: str = "ann") -> int:
        slot = table.take(ConversationKey(tenant, chain, start, replayed), ResponseId(chain), None)
        table.release(slot)
        return slot

    assert run("a", b"x", replayed=False) == 0
    assert run("b", b"x", replayed=False) == 1
    assert run("c", b"x", replayed=True) == 1
    assert run("d", b"x", replayed=True) == 1
    slot = table.take(ConversationKey("ann", "d"), ResponseId("d2"), ResponseId("d"))
    assert slot == 1
    assert run("e", b"x", replayed=True) == 0
    table.release(slot)
    assert run("f", b"x", replayed=True, tenant="bob") == 2


def test_a_client_may_go_on_by_id_and_then_send_everything() -> None:
    """A client must send everything when its connection is lost; the table remembers the chain's prefix."""
    table = SlotTable(2)
    turns = [
        (ConversationKey("ann", "a", b"x"), "a1", None),
        (ConversationKey("ann", "a"), "a2", "a1"),
        (ConversationKey("ann", "b", b"x", replayed=True), "b1", None),
        (ConversationKey("ann", "b"), "b2", "b1"),
        (ConversationKey("ann", "c", b"x", replayed=True), "c1", None),
    ]
    for origin, turn, parent in turns:
        slot = table.take(origin, ResponseId(turn), None if parent is None else ResponseId(parent))
        assert slot == 0
        table.release(slot)


class Pinning(RuleBasedStateMachine):
    """Any sequence of turns that begin and end, of any conversations, forks and tenants."""

    turns = Bundle("turns")

    @initialize(count=st.integers(1, 5))
    def open(self, count: int) -> None:
        self.table = SlotTable(count)
        self.count = count
        self.running: dict[int, str] = {}
        self.chain_of: dict[int, tuple[str, str]] = {}  # by slot
        self.used: list[int] = []  # the slots, the one taken last at the end
        self.made = 0

    def _take(self, tenant: str, chain: str, parent: str | None) -> str:
        self.made += 1
        turn = f"{chain}/{self.made}"
        slot = self.table.take(
            ConversationKey(tenant, chain), ResponseId(turn), None if parent is None else ResponseId(parent)
        )
        assert 0 <= slot < self.count
        assert slot not in self.running, "a running turn lost its slot"
        own = [one for one, name in self.chain_of.items() if name == (tenant, chain) and one not in self.running]
        if own:
            assert slot in own, "a conversation lost a slot that was its own"
        elif len(self.chain_of) < self.count:
            assert slot not in self.chain_of, "a conversation was driven out while a slot was free"
        else:
            assert slot == next(one for one in self.used if one not in self.running), "another rested longer"
        self.running[slot] = turn
        self.chain_of[slot] = (tenant, chain)
        self.used = [*(one for one in self.used if one != slot), slot]
        return turn

    @precondition(lambda self: len(self.running) < self.count)
    @rule(target=turns, tenant=st.sampled_from(["ann", "bob"]), chain=st.sampled_from("abcdef"))
    def begin(self, tenant: str, chain: str) -> object:
        return multiple((tenant, chain, self._take(tenant, chain, None)))

    @precondition(lambda self: len(self.running) < self.count)
    @rule(target=turns, parent=turns)
    def go_on(self, parent: tuple[str, str, str]) -> object:
        """Continue any earlier turn: the last of a branch, or one in the middle."""
        tenant, chain, turn = parent
        return multiple((tenant, chain, self._take(tenant, chain, turn)))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[slot]
        self.table.release(slot)

    def teardown(self) -> None:
        if hasattr(self, "table"):
            assert self.table.running == len(self.running) <= self.count


TestPinning = Pinning.TestCase
TestPinning.settings = settings(max_examples=examples(100), stateful_step_count=50)
