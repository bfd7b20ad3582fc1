"""The checker of the tunnel's wire: what it lets pass, and each breach that it names."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead
from segue.testing.tunnel_checker import TunnelChecker, Way
from segue.tunnel.frames import (
    VERSION,
    Ack,
    Data,
    ExchangeResume,
    ExchangeResumed,
    ExtensionFrame,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Parameter,
    Ping,
    Pong,
    ReplyFrame,
    Reset,
    Taken,
    Welcome,
    Window,
    encode_frame,
    encode_packet,
)
from segue.tunnel.header_table import HeaderTable, encode_reply, encode_request
from segue.tunnel.static_table import REPLY, REQUEST
from tests.tunnel.checkers import new_checker

HELLO = Hello(VERSION, b"", 0, ())
WELCOME = Welcome(VERSION, b"node", 0, 1 << 20, b"", ())
POST = RequestHead(b"POST", b"/v1", (Line(b"Accept", b"*/*"),))
OK = ReplyHead(200, b"OK", (Line(b"Date", b"now"),))

Step = tuple[Way, Frame]


def opened(number: int = 1, head: RequestHead = POST, *, kind: ExchangeKind = "http", has_body: bool = True) -> Step:
    piece = encode_request(head, kind, HeaderTable(REQUEST))
    return "up", Open(number, last=True, has_body=has_body, piece=piece)


def reply(number: int = 1, head: ReplyHead = OK) -> Step:
    return "down", ReplyFrame(number, last=True, piece=encode_reply(head, HeaderTable(REPLY)))


def named(number: int, back: int) -> Open:
    return Open(number, last=True, has_body=False, piece=b"\x00\x03\x02", reply_base=back)  # the head before it again


def data(way: Way, payload: bytes = b"x", *, at: int = 0, final: bool = False, again: bool = False) -> Step:
    return way, Data(1, at, final, again, payload)


BEGIN: tuple[Step, ...] = (("up", HELLO), ("down", WELCOME))
ASKED: tuple[Step, ...] = (*BEGIN, opened())
REPLIED: tuple[Step, ...] = (*ASKED, reply())


TALKING: tuple[Step, ...] = (
    *BEGIN,
    opened(kind="websocket", has_body=False),
    reply(head=ReplyHead(101, b"Switching Protocols", ())),
)


def hear(checker: TunnelChecker, *steps: Step) -> list[str]:
    for way, frame in steps:
        checker.sent(way, encode_packet([encode_frame(frame)]))
    return checker.problems


def heard(*steps: Step) -> list[str]:
    checker = new_checker()
    checker.link_opened()
    return hear(checker, *steps)


def test_an_exchange_with_a_miss_that_goes_on_over_a_cut_is_as_it_must_be() -> None:
    checker = new_checker()
    checker.link_opened()
    first = (
        *ASKED,
        data("up", b"delta", final=True),
        ("down", Miss(1, 1)),
        data("up", b"whole", final=True, again=True),
    )
    assert hear(checker, *first, ("down", Window(1, 300_000)), reply(), data("down", b"rep")) == []
    checker.link_opened()
    again = Hello(VERSION, b"node", 1, (ExchangeResume(1, 2, has_head=True, again=True),))
    welcome = Welcome(VERSION, b"node", 1, 1 << 20, b"", (ExchangeResumed(1, 5),))
    end = (data("up", b"", at=5, final=True, again=True), data("down", b"ply", at=2, final=True))
    assert hear(checker, ("up", again), ("down", welcome), *end, ("down", GoAway())) == []


def test_a_miss_that_was_lost_is_told_again() -> None:
    checker = new_checker()
    checker.link_opened()
    hear(checker, *ASKED, data("up", b"delta", final=True), ("down", Miss(1, 1)))
    checker.link_opened()
    again = Hello(VERSION, b"node", 1, (ExchangeResume(1, 0, has_head=False, again=False),))
    welcome = Welcome(VERSION, b"node", 1, 1 << 20, b"", (ExchangeResumed(1, 5),))
    late = data("up", b"", at=5, final=True)
    whole = data("up", b"whole", final=True, again=True)
    told: tuple[Step, ...] = (("down", Miss(1, 1)), ("down", Window(1, 262_144)))
    assert hear(checker, ("up", again), ("down", welcome), *told, late, whole) == []


def test_what_was_given_up_may_still_get_what_is_under_way() -> None:
    cancelled: Step = ("up", Reset(1, "cancelled", b""))
    assert heard(*ASKED, cancelled, reply(), data("down"), ("down", Miss(1, 1)), cancelled, data("up")) == []


def test_a_length_may_stand_in_what_has_no_content() -> None:
    long = ReplyHead(200, b"OK", (Line(b"Content-Length", b"5"),))
    head = RequestHead(b"HEAD", b"/v1", ())
    assert heard(*BEGIN, opened(head=head), reply(head=long)) == []
    assert heard(*ASKED, reply(head=ReplyHead(304, b"", long.lines))) == []


SWITCHED = reply(head=ReplyHead(101, b"", ()))
#: Openings of messages, by a document with a base and by one without.
ASKS = b"\x01\x03\x02ab"
WHOLE = b"\x01\x03\x00ab"
MISSED: tuple[Step, ...] = (*TALKING, data("up", ASKS), ("down", Miss(1, 1)))


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ((("up", WELCOME),), "WELCOME does not go up"),
        ((opened(),), "OPEN comes before HELLO or WELCOME"),
        ((("down", WELCOME),), "WELCOME comes before HELLO"),
        ((("up", HELLO), opened()), "the sidecar sends OPEN before there is a WELCOME"),
        ((*BEGIN, ("up", HELLO)), "a second HELLO"),
        ((("up", Hello(2, b"", 0, ())),), "of another version"),
        ((("up", Hello(VERSION, b"else", 0, ())),), "an epoch that no WELCOME told"),
        ((("up", Hello(VERSION, b"", 0, (ExchangeResume(3, 0, has_head=False, again=False),))),), "a last number"),
        ((("up", Hello(VERSION, b"", 3, (ExchangeResume(3, 9, has_head=False, again=False),))),), "a part of a reply"),
        (
            (("up", Hello(VERSION, b"", 3, (ExchangeResume(3, 0, has_head=False, again=False),) * 2)),),
            "a list has a number twice",
        ),
        ((("up", HELLO), ("down", Welcome(VERSION, b"n", 1, 1, b"", (ExchangeResumed(1, 0),)))), "does not want"),
        ((*BEGIN, opened(1), opened(1, RequestHead(b"GET", b"/", ()))), "the number 1, which is not above 1"),
        ((*BEGIN, opened(kind="websocket")), "a document beside messages"),
        ((*BEGIN, opened(head=RequestHead(b"GET", b"/", (Line(b"TE", b"x"),)))), "a line of the hop: te"),
        ((*BEGIN, opened(head=RequestHead(b"GET", b"/", (Line(b"Content-Length", b"1"),)))), "a Content-Length"),
        ((*BEGIN, ("up", Open(1, last=True, has_body=False, piece=b"\x02"))), "no known kind"),
        ((*BEGIN, ("up", Open(1, last=False, has_body=False, piece=b"\0")), opened(2)), "within another head"),
        ((*REPLIED, ("up", named(2, 1))), "a reply that was not sent"),
        (
            (*ASKED, ("down", ReplyFrame(1, last=True, piece=encode_reply(OK, HeaderTable(REPLY)), has_base=True))),
            "that OPEN did not name",
        ),
        ((*REPLIED, ("down", Taken(1, 1))), "TAKEN of what is no WebSocket"),
        ((*TALKING, ("down", Taken(1, 1))), "TAKEN of a message that has not come"),
        ((*TALKING, ("down", Miss(1, 1))), "MISS of a message that has not come"),
        ((*TALKING, data("up", WHOLE), ("down", Taken(1, 1))), "TAKEN of a message that has not come"),
        ((*TALKING, data("up", ASKS[:-1]), ("down", Taken(1, 1))), "TAKEN of a message that has not come"),
        ((*TALKING, data("up", ASKS), ("down", Miss(1, 2))), "MISS of a message that has not come"),
        ((*TALKING, data("up", ASKS), *[("down", Taken(1, 1))] * 2), "TAKEN that was told on this link"),
        ((*TALKING, data("up", ASKS), ("down", Taken(1, 1)), ("down", Miss(1, 1))), "in place of another answer"),
        ((*TALKING, data("up", ASKS), ("down", Taken(1, 1)), ("down", Miss(1, 2))), "a message that has not come"),
        (
            (*TALKING, data("up", ASKS), ("down", Reset(1, "failed", b"")), ("down", Taken(1, 1))),
            "of a WebSocket that is not open",
        ),
        ((*TALKING, data("up", ASKS + b"\0")), "behind a message that was not answered"),
        ((*TALKING, data("up", ASKS), data("up", b"\1", at=len(ASKS))), "behind a message that was not answered"),
        ((*MISSED, data("up", b"\0", at=len(ASKS))), "not sent again without a base"),
        ((*MISSED, data("up", ASKS, at=len(ASKS))), "not sent again without a base"),
        ((*TALKING, data("up", WHOLE, again=True)), "without a MISS"),
        ((*TALKING, data("up"), ("up", Taken(1, 1))), "TAKEN does not go up"),
        ((*BEGIN, reply()), "REPLY of an exchange that was never opened"),
        ((*ASKED, reply(), reply(head=ReplyHead(201, b"Made", ()))), "a second REPLY"),
        ((*ASKED, reply(head=ReplyHead(20, b"OK", ()))), "another first line"),
        ((*ASKED, reply(head=ReplyHead(200, b"OK", (Line(b"Content-Length", b"1"),)))), "would frame something"),
        ((*ASKED, data("down")), "DATA before REPLY"),
        ((*REPLIED, data("down", again=True)), "as if it were an upload"),
        ((*REPLIED, data("down", at=1)), "a gap"),
        ((*REPLIED, data("down", final=True), data("down", at=1)), "behind the end"),
        ((*REPLIED, data("down"), data("down", b"y")), "with other bytes"),
        ((*REPLIED, data("down", b"xyz"), data("down", final=True)), "two ends"),
        ((*REPLIED, ("down", Reset(1, "aborted", b"")), data("down")), "behind a RESET"),
        ((*ASKED, *(data("up", bytes(16_000), at=at) for at in range(0, 16_000 * 17, 16_000))), "beyond the window"),
        ((*BEGIN, opened(has_body=False), data("up")), "of a request that has none"),
        ((*BEGIN, opened(kind="websocket", has_body=False), data("up")), "of a request that has none"),
        ((*ASKED, data("up", again=True)), "without a MISS"),
        ((*ASKED, ("down", Miss(1, 1)), ("down", Miss(1, 1))), "a second MISS"),
        ((*REPLIED, ("down", Miss(1, 1))), "a MISS behind REPLY"),
        ((*ASKED, ("up", Reset(1, "failed", b""))), "code 4 does not go up"),
        ((*ASKED, ("down", Reset(1, "cancelled", b""))), "code 0 does not go down"),
        ((*BEGIN, ("down", Ack(10_000, 0))), "above what was sent"),
        ((*BEGIN, ("down", Ack(5, 0)), ("down", Ack(4, 0))), "tells nothing new"),
        ((*BEGIN, ("down", Ack(5, 0)), ("down", Ack(5, 0))), "tells nothing new"),
        ((*BEGIN, ("down", GoAway()), ("down", GoAway())), "a second GOAWAY"),
        ((*BEGIN, ("up", ExtensionFrame(64, b""))), "no parameter allows"),
        ((("up", Hello(VERSION, b"", 0, (), (Parameter(1, b"\x02x"),))),), "the fold is no number"),
        ((("up", Hello(VERSION, b"", 0, (), (Parameter(1, b""),))),), "a number is cut"),
        ((*ASKED, ("down", Window(1, 262_144))), "does not raise the limit"),
        ((*ASKED, ("down", Window(1, 300_000)), ("down", Window(1, 300_000))), "does not raise the limit"),
        ((*ASKED, ("down", Window(1, 300_000)), ("down", Window(1, 299_999))), "does not raise the limit"),
        ((*ASKED, reply(head=ReplyHead(103, b"Early Hints", ()))), "an interim response"),
        ((*ASKED, SWITCHED), "a switch of protocols that nobody asked for"),
        (
            (*BEGIN, *(opened(number, RequestHead(b"GET", b"/%d" % number, ())) for number in range(1, 258))),
            "more than 256 exchanges",
        ),
        ((*BEGIN, ("down", Pong(4))), "no PING asked for"),
    ],
)
def test_each_breach_is_named(steps: tuple[Step, ...], problem: str) -> None:
    (found,) = heard(*steps)
    assert problem in found


def test_messages_of_a_websocket_may_go_up_once_it_was_accepted() -> None:
    messages: tuple[Step, ...] = (data("up"), ("up", Window(1, 300_000)), ("down", Window(1, 263_000)))
    assert heard(*BEGIN, opened(kind="websocket", has_body=False), SWITCHED, *messages) == []


def test_a_limit_is_told_again_on_a_new_link_and_not_twice() -> None:
    heard_by = new_checker()
    heard_by.link_opened()
    hear(heard_by, *ASKED, ("down", Window(1, 300_000)))
    heard_by.link_opened()
    again = Hello(VERSION, b"node", 1, (ExchangeResume(1, 0, has_head=False, again=False),))
    welcome = Welcome(VERSION, b"node", 1, 1 << 20, b"", (ExchangeResumed(1, 0),))
    assert hear(heard_by, ("up", again), ("down", welcome), ("down", Window(1, 300_000))) == []
    assert len(hear(heard_by, ("down", Window(1, 300_000)))) == 1


def test_heartbeats_come_first_in_their_packet() -> None:
    checker = new_checker()
    checker.link_opened()
    hear(checker, *BEGIN, ("up", Ping(4)))
    checker.sent("down", encode_packet([encode_frame(Pong(4)), encode_frame(GoAway())]))
    assert checker.problems == []
    checker.sent("down", encode_packet([encode_frame(GoAway()), encode_frame(Pong(4))]))
    assert checker.problems == ["down: ACK and PONG come first in a packet"]


def resumed(resume: ExchangeResume, offset: int) -> list[str]:
    checker = new_checker()
    checker.link_opened()
    hear(checker, *ASKED, data("up", b"delta"))
    checker.link_opened()
    welcome = Welcome(VERSION, b"node", 1, 1 << 20, b"", (ExchangeResumed(1, offset),))
    return hear(checker, ("up", Hello(VERSION, b"node", 1, (resume,))), ("down", welcome))


def test_what_goes_on_goes_on_from_what_was_sent() -> None:
    assert resumed(ExchangeResume(1, 0, has_head=False, again=False), 5) == []
    (problem,) = resumed(ExchangeResume(1, 0, has_head=False, again=False), 6)
    assert "beyond what was sent" in problem
    (problem,) = resumed(ExchangeResume(1, 0, has_head=True, again=False), 5)
    assert "a REPLY or a MISS that was never sent" in problem


def test_nothing_is_read_behind_a_fault_until_the_next_link() -> None:
    checker = new_checker()
    checker.sent("up", b"before any link")
    checker.link_opened()
    checker.sent("up", b"nonsense")
    hear(checker, *BEGIN)
    assert checker.problems == ["up: a packet without frames or with another checksum"]
    checker.link_opened()
    assert len(hear(checker, *BEGIN)) == 1


def test_a_node_that_was_passed_by_changes_nothing_at_the_one_before() -> None:
    checker = new_checker()
    checker.link_opened()
    assert hear(checker, *REPLIED) == []
    checker.link_opened()
    hello = Hello(VERSION, b"node", 1, (ExchangeResume(1, 0, has_head=True, again=False),))
    assert hear(checker, ("up", hello), ("down", replace(WELCOME, epoch=b"other", last_opened=1))) == []
    checker.link_opened()
    assert hear(checker, ("up", hello)) == []


def test_a_reply_may_build_on_an_earlier_one_at_the_same_node() -> None:
    checker = new_checker()
    checker.link_opened()
    second = ReplyFrame(2, last=True, piece=b"\x03\x02", has_base=True)
    assert hear(checker, *REPLIED, data("down", final=True), ("up", named(2, 1)), ("down", second)) == []
    checker.link_opened()
    assert hear(checker, ("up", Hello(VERSION, b"node", 2, ())), ("down", replace(WELCOME, epoch=b"other"))) == []
    (step, frame) = opened(3, has_body=False)
    assert isinstance(frame, Open)
    assert hear(checker, (step, replace(frame, reply_base=2))) == [
        "up: OPEN names a reply that was not sent at this node"
    ]


def test_messages_are_taken_or_missed_and_the_last_answer_is_told_on_each_link() -> None:
    checker, sent = new_checker(), b""
    checker.link_opened()
    assert hear(checker, *TALKING) == []
    for said, answer in (
        (WHOLE + ASKS, Taken(1, 1)),
        (ASKS, Miss(1, 2)),
        (WHOLE + b"\0\1\0\0" + ASKS, Taken(1, 3)),
        (b"\0\2\0\0x\1\0\0" + ASKS, Miss(1, 4)),
        (WHOLE, Miss(1, 4)),
    ):
        assert hear(checker, data("up", said, at=len(sent))) == []
        sent += said
        if said != WHOLE:
            assert hear(checker, ("down", answer)) == []
        checker.link_opened()
        hello = Hello(VERSION, b"node", 1, (ExchangeResume(1, 0, has_head=True, again=False),))
        welcome = Welcome(VERSION, b"node", 1, 1 << 20, b"", (ExchangeResumed(1, len(sent)),))
        assert hear(checker, ("up", hello), ("down", welcome), ("down", answer)) == []


def test_the_answers_to_what_is_no_upload_are_only_counted() -> None:
    nothing = (*TALKING, data("up", b"\xff"), ("down", Miss(1, 1)), data("up", b"x", at=1), ("down", Taken(1, 2)))
    assert heard(*nothing) == []
    assert "has not come" in heard(*nothing, ("down", Taken(1, 4)))[0]
