"""What may and may not be true after each outcome: the model that the nodes are held against. Pure.

Every turn has a text of its own (its *marker*) that names its tenant and its session, and the answer to it repeats the
marker. So whatever a provider receives, a client is answered or a list shows can be told to be what was asked for, to
be there twice, to be missing, or to be another's. What contradicts the ledger is noted in `faults`, not raised: more
may follow, and all of it is to be seen. Not here: who asks (`sessions`, `agents`), and what breaks (`disturbances`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

#: What a client knows of a turn: nothing yet; it was completed; it was refused before it could run; nothing certain.
Outcome = Literal["open", "acknowledged", "refused", "unknown"]
#: Whether a response is there: no deletion was asked for, or one whose outcome is unknown, or one that was confirmed.
Presence = Literal["kept", "perhaps", "deleted"]


class LedgerTurn(msgspec.Struct, eq=False):
    """One turn, as its client knows it."""

    marker: str
    tenant: str
    before: tuple[str, ...] | None
    """What was said before it; None for a turn of a conversation, where that depends on what became of others."""
    conversation: LedgerConversation | None = None
    sent_in: int | None = 0
    """How often places had been lost when its client sent it first; None: that was not sure."""
    sent: int = 1
    """How often its client has sent it."""
    runs: int = 0
    outcome: Outcome = "open"
    presence: Presence = "kept"
    response_id: str | None = None

    @property
    def answer(self) -> str:
        """What the provider answers."""
        return answer_to(self.marker)

    @property
    def after(self) -> tuple[str, ...]:
        """The history that a turn has which continues this one."""
        assert self.before is not None, "turns of a conversation are not continued by id"
        return (*self.before, self.marker, self.answer)


class LedgerConversation(msgspec.Struct, eq=False):
    """A conversation: its turns in the order in which their client sent them, one after the other."""

    tenant: str
    id: str
    turns: list[LedgerTurn] = []

    def allows(self, texts: Sequence[str], before: LedgerTurn | None = None) -> bool:
        """Say whether it may consist of these texts: all acknowledged turns, and any of those that are unknown."""
        left = list(texts)
        for turn in self.turns:
            if turn is before:
                break
            if left[:2] == [turn.marker, turn.answer]:
                if turn.outcome == "refused":
                    return False
                left = left[2:]
            elif turn.outcome == "acknowledged":
                return False
        return not left


class LedgerExchange(msgspec.Struct, eq=False):
    """One request of an agent through its sidecar. The agent may repeat it: each attempt is forwarded once at most."""

    marker: str
    tenant: str
    sent_in: list[int | None] = []
    """For each attempt, how often places had been lost when its agent sent it."""
    forwarded: set[int] = msgspec.field(default_factory=set)
    """The attempts that were forwarded."""
    refused: set[int] = msgspec.field(default_factory=set)
    """The attempts that the agent was told may be made again, or that it could not even send."""
    outcome: Literal["open", "answered", "unknown"] = "open"

    @property
    def attempts(self) -> int:
        """How often its agent has sent it."""
        return len(self.sent_in)


class Ledger:
    """All turns, exchanges and conversations, and what was found to contradict them.

    `place_losses` says how often places under a limit may have been lost; None: they may be just now.
    """

    def __init__(self, place_losses: Callable[[], int | None] = lambda: 0) -> None:
        self._place_losses = place_losses
        self.turns: dict[str, LedgerTurn] = {}
        self.exchanges: dict[str, LedgerExchange] = {}
        self.conversations: list[LedgerConversation] = []
        self.faults: list[str] = []
        self.acknowledged = 0
        self.counted = 0
        """How often turns that run at once were compared with their limit."""
        self._by_response: dict[str, LedgerTurn] = {}

    def fault(self, what: str) -> None:
        """Note what must not be."""
        self.faults.append(what)

    # --- what clients do ---------------------------------------------------------------------------------------------

    def begin(
        self, session: str, tenant: str, parent: LedgerTurn | None = None, talk: LedgerConversation | None = None
    ) -> LedgerTurn:
        """Begin a turn: from now on its marker may be received once."""
        marker = f"{tenant}/{session}/{len(self.turns)}"
        before = None if talk is not None else () if parent is None else parent.after
        turn = self.turns[marker] = LedgerTurn(marker, tenant, before, talk, self._place_losses())
        if talk is not None:
            talk.turns.append(turn)
        return turn

    def begin_exchange(self, session: str, tenant: str) -> LedgerExchange:
        """Begin a request of an agent."""
        marker = f"{tenant}/{session}/{len(self.exchanges)}"
        exchange = self.exchanges[marker] = LedgerExchange(marker, tenant)
        return exchange

    def try_exchange(self, exchange: LedgerExchange) -> int:
        """Note that an agent sends its request, for the first time or again; return the number of the attempt."""
        exchange.sent_in.append(self._place_losses())
        return exchange.attempts - 1

    def refuse_attempt(self, exchange: LedgerExchange, attempt: int, why: str) -> None:
        """Note that an agent may make an attempt again: it was not forwarded, and never will be."""
        if attempt in exchange.forwarded:
            self.fault(f"{exchange.marker} ({attempt}) was forwarded, and its agent was told that it was not: {why}")
        exchange.refused.add(attempt)

    def answer_attempt(self, exchange: LedgerExchange, attempt: int) -> None:
        """Note that an agent has a whole reply of the provider."""
        if attempt not in exchange.forwarded:
            self.fault(f"{exchange.marker} ({attempt}) was answered, and never forwarded")
        exchange.outcome = "answered"

    def begin_conversation(self, tenant: str, ident: str) -> LedgerConversation:
        """Note a conversation that was made."""
        self.conversations.append(LedgerConversation(tenant, ident))
        return self.conversations[-1]

    def name(self, turn: LedgerTurn, response_id: str) -> None:
        """Note the id of a turn's response. It never has another one, and nobody else has it."""
        if turn.response_id not in (None, response_id):
            self.fault(f"{turn.marker} has two responses: {turn.response_id} and {response_id}")
        if self._by_response.setdefault(response_id, turn) is not turn:
            self.fault(f"{response_id} is of {turn.marker} and of {self._by_response[response_id].marker}")
        turn.response_id = response_id

    def acknowledge(self, turn: LedgerTurn, response_id: str, text: str) -> None:
        """Note that a client was told that a turn is completed."""
        self.name(turn, response_id)
        if text != turn.answer:
            self.fault(f"{turn.marker} was answered {text!r}")
        if turn.runs != 1:
            self.fault(f"{turn.marker} is completed, and has run {turn.runs} times")
        if turn.outcome == "refused":
            self.fault(f"{turn.marker} was refused, and is completed")
        self.acknowledged += turn.outcome != "acknowledged"
        turn.outcome = "acknowledged"

    def send_again(self, turn: LedgerTurn) -> None:
        """Note that a client sends a turn once more: it may run now, if it has not."""
        turn.sent += 1
        if turn.outcome == "refused":
            turn.outcome = "open"

    def refuse(self, turn: LedgerTurn, code: str) -> None:
        """Note that a client was told that a turn may be sent again: it has not run, unless it was sent before."""
        if turn.sent > 1:
            return
        if turn.runs:
            self.fault(f"{turn.marker} was refused with {code} as one that may be sent again, and has run")
        turn.outcome = "refused"

    def lose(self, turn: LedgerTurn) -> None:
        """Note that nobody knows what became of a turn."""
        if turn.outcome == "open":
            turn.outcome = "unknown"

    # --- what the provider receives ----------------------------------------------------------------------------------

    def receive(self, texts: Sequence[str]) -> LedgerTurn | None:
        """Note that the provider is asked to answer these texts; return the turn that asks for it."""
        turn = self.turns.get(texts[-1]) if texts else None
        if turn is None:
            self.fault(f"the provider received {list(texts)[-3:]}, which nobody has said")
            return None
        turn.runs += 1
        if turn.runs > 1:
            self.fault(f"{turn.marker} has run {turn.runs} times")
        if turn.outcome == "refused":
            self.fault(f"{turn.marker} was refused, and runs")
        self.compare(turn, texts[:-1], "the provider received")
        return turn

    def forward(self, marker: str, attempt: int) -> LedgerExchange | None:
        """Note that the provider received a request of an agent."""
        exchange = self.exchanges.get(marker)
        if exchange is None or attempt >= exchange.attempts:
            self.fault(f"the provider received the request {marker!r} ({attempt}), which no agent has sent")
            return None
        if attempt in exchange.forwarded:
            self.fault(f"the request {marker} ({attempt}) was forwarded again")
        if attempt in exchange.refused:
            self.fault(f"the request {marker} ({attempt}) was refused, and is forwarded")
        exchange.forwarded.add(attempt)
        return exchange

    def count_running(self, sent_in: Iterable[int | None], *, most: int) -> None:
        """Note the turns with a limit that run at once, each by when it was sent.

        A node that stood still has lost its places, but what it had begun goes on, and what it was about to begin it
        may still begin. No other node can know of that, so no limit promises it. Of all turns that were sent since, no
        more may run.
        """
        losses = self._place_losses()
        if losses is None:
            return
        running = sum(sent == losses for sent in sent_in)
        self.counted += running > 0
        if running > most:
            self.fault(f"{running} turns run at once, and no more than {most} may")

    def compare(self, turn: LedgerTurn, texts: Sequence[str], where: str) -> None:
        """Compare what is before a turn somewhere with what it must be."""
        if turn.conversation is not None:
            if not turn.conversation.allows(texts, turn):
                self.fault(f"{where} before {turn.marker}: {list(texts)}, not what its conversation may be")
        elif tuple(texts) != turn.before:
            self.fault(f"{where} before {turn.marker}: {list(texts)} instead of {list(turn.before or ())}")

    # --- what is there in the end ------------------------------------------------------------------------------------

    def list_response(self, tenant: str, response_id: str, texts: Sequence[str]) -> None:
        """Note that a list shows a response, whose history with its own input consists of these texts."""
        turn = self.turns.get(texts[-1]) if texts else None
        if turn is None or turn.tenant != tenant:
            self.fault(f"{tenant} is shown {response_id}, which is not its own: {list(texts)[-3:]}")
            return
        if turn.outcome == "refused" or turn.presence == "deleted":
            self.fault(f"{turn.marker} was {turn.outcome} and is {turn.presence}, and is listed")
        self.name(turn, response_id)
        self.compare(turn, texts[:-1], "a list shows")

    def missing(self, listed: set[str]) -> list[LedgerTurn]:
        """Return the turns that were acknowledged and are not among these responses, unless somebody deleted them."""
        kept = (turn for turn in self.turns.values() if turn.outcome == "acknowledged" and turn.presence == "kept")
        return [turn for turn in kept if turn.response_id not in listed]


def answer_to(marker: str) -> str:
    """Return what the provider answers to a turn."""
    return f"re {marker}"
