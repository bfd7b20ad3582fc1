"""Tokens become text, calls and log probabilities; the tokens are exactly those of the text that a client gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.output.answer_reader import AnswerReader
from segue.engine.output.logprobs import Score, ScoredText, TokenLogprob
from segue.engine.output.reasoning_parser import ReasoningParser, ReasoningPiece
from segue.engine.output.tool_call_parser import AnswerPart, CallArguments, CallBegan, CallEnded
from segue.engine.prompt.chat_template import DEFAULT_CALL_FORMAT, ReasoningFormat
from segue.engine.prompt.messages import PromptTool, Tools
from segue.engine.sampling_params import SamplingParams
from tests.engine.grammar.byte_grammars import parser_for

pytestmark = pytest.mark.local_engine  # grammars of calls need it

Part = AnswerPart | ScoredText | ReasoningPiece
GET = PromptTool("get", {"type": "function", "function": {"name": "get"}})
CALL = f'{DEFAULT_CALL_FORMAT.prefix}get{DEFAULT_CALL_FORMAT.middle}{{"a": "€"}}{DEFAULT_CALL_FORMAT.suffix}'.encode()
TOOLS = {True: Tools((GET,), ("get",)), False: Tools()}

#: What answers are made of: characters of one to four bytes, bytes that are none, and what may be a call or a stop.
chunks = st.sampled_from(
    [b"a", "é".encode(), "€".encode(), "😀".encode(), b"\xff", b"\xe2\x82", b"\n", b"<", b"<tool_call>"]
)
answers = st.tuples(st.lists(chunks, max_size=12), st.sampled_from([b"", CALL])).map(
    lambda two: b"".join(two[0]) + two[1]
)
sizes = st.lists(st.integers(0, 7), max_size=40)
stops = st.lists(st.text("aé€<\n", min_size=1, max_size=3), max_size=2).map(tuple)


def cut(answer: bytes, lengths: list[int]) -> list[bytes]:
    """An answer as tokens; control tokens have no bytes."""
    tokens = []
    for length in [*lengths, *[3] * len(answer)]:
        tokens.append(answer[:length])
        answer = answer[length:]
    while tokens and not tokens[-1]:
        tokens.pop()
    return tokens


def read(reader: AnswerReader, tokens: list[bytes]) -> list[Part]:
    """What comes of tokens; the score of each is its own number, below zero."""
    parts: list[Part] = []
    for number, token in enumerate(tokens, 1):
        score = None if reader.top_logprobs is None else Score(-float(number), ())
        parts += reader.feed(token, score)
        if reader.stopped:
            break
    return [*parts, *reader.close()]


def joined(parts: list[Part]) -> list[AnswerPart]:
    """The same with neighbouring texts in one."""
    whole: list[AnswerPart] = []
    for part in parts:
        text = part.text if isinstance(part, ScoredText) else part
        if isinstance(text, str) and whole and isinstance(whole[-1], str):
            whole[-1] += text
        else:
            assert not isinstance(text, ReasoningPiece), "no model of these tests thinks but where it is tested"
            whole.append(text)
    return whole


@given(answers, sizes, stops, st.booleans())
def test_the_tokens_of_a_text_are_its_bytes(
    answer: bytes, lengths: list[int], words: tuple[str, ...], tools: bool
) -> None:
    """However it is cut into tokens, whatever of it is held back, stripped, a call, or behind a stop."""
    tokens = cut(answer, lengths)
    plain = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[tools]), SamplingParams(stops=words))
    scored = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[tools]), SamplingParams(stops=words, top_logprobs=0))
    expected, got = read(plain, tokens), read(scored, tokens)
    texts = [part for part in got if isinstance(part, ScoredText)]
    assert not [part for part in got if isinstance(part, str)]
    assert joined(got) == joined(expected)
    assert scored.stopped == plain.stopped
    for text in texts:
        assert text.text
        assert b"".join(bytes(one.bytes) for one in text.logprobs) == text.text.encode()
    entries = [one for text in texts for one in text.logprobs]
    assert all(one.bytes and one.token == bytes(one.bytes).decode("utf-8", "replace") for one in entries)
    numbers = [round(-one.logprob) for one in entries]
    assert numbers == sorted(set(numbers)), "each token once, and in order"
    if "\ufffd" not in answer.decode("utf-8", "replace"):
        assert [bytes(one.bytes) for one in entries[:-1]] == [tokens[number - 1] for number in numbers[:-1]]
        assert not numbers or tokens[numbers[-1] - 1].startswith(bytes(entries[-1].bytes)), "only the last may be cut"


def fed(reader: AnswerReader, *tokens: bytes) -> list[list[Part]]:
    return [reader.feed(token, Score(-1.0, ())) for token in tokens]


def entry(shown: bytes) -> TokenLogprob:
    return TokenLogprob(shown.decode("utf-8", "replace"), -1.0, list(shown), ())


def test_a_piece_has_its_own_tokens() -> None:
    """A character of two tokens goes out when it is whole, and so does what stands in one token with it."""
    reader = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, Tools()), SamplingParams(top_logprobs=0))
    euro = "€".encode()
    assert fed(reader, b"a", b"b" + euro[:1], euro[1:2], euro[2:]) == [
        [ScoredText("a", [entry(b"a")])],
        [],
        [],
        [ScoredText("b€", [entry(b"b" + euro[:1]), entry(euro[1:2]), entry(euro[2:])])],
    ]
    assert reader.close() == []


def test_a_token_that_ends_in_a_call_is_cut_before_it() -> None:
    """With the bytes that the client sees; the tokens of the call have no scores, and need none."""
    reader = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[True]), SamplingParams(top_logprobs=3))
    wanted = [reader.top_logprobs]
    assert fed(reader, b"ab\n\n" + CALL[:14]) == [[]]
    assert [*wanted, reader.top_logprobs] == [3, None]
    parts = reader.feed(CALL[14:])
    assert parts == [ScoredText("ab", [entry(b"ab")]), CallBegan("get"), CallArguments('{"a": "€"}'), CallEnded()]


def test_what_is_held_back_keeps_its_token_back() -> None:
    """So that each piece of text has whole tokens."""
    reader = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[True]), SamplingParams(top_logprobs=0))
    assert fed(reader, b"a", b"b<to", b"ol") == [[ScoredText("a", [entry(b"a")])], [], []]
    assert fed(reader, b"s") == [[ScoredText("b<tools", [entry(b"b<to"), entry(b"ol"), entry(b"s")])]]


def test_a_token_that_holds_a_stop_is_cut_before_it() -> None:
    reader = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, Tools()), SamplingParams(stops=("STOP",), top_logprobs=0))
    assert fed(reader, b"a", b"bST", b"OP!") == [[ScoredText("a", [entry(b"a")])], [], [ScoredText("b", [entry(b"b")])]]
    assert reader.stopped
    assert reader.close() == []


def test_a_stop_is_no_stop_in_arguments() -> None:
    """And what may have been the beginning of one is text when a call begins, and at the end."""
    reader = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[True]), SamplingParams(stops=("a!", '"a"')))
    assert read(reader, [b"a", CALL[:14], CALL[14:]]) == [
        "a",
        CallBegan("get"),
        CallArguments('{"a": "€"}'),
        CallEnded(),
    ]
    assert not reader.stopped
    assert read(AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[True]), SamplingParams(stops=("a!",))), [b"ba"]) == [
        "b",
        "a",
    ]


def test_a_stop_may_be_found_at_the_end() -> None:
    """In what might have become a call."""
    reader = AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[True]), SamplingParams(stops=("<t",)))
    assert read(reader, [b"a<tool"]) == ["a"]
    assert reader.stopped


def thinking(sampling_params: SamplingParams, *, tools: bool = False) -> AnswerReader:
    reasoning = ReasoningParser(ReasoningFormat("<think>", "</think>"), begun=False)
    return AnswerReader(parser_for(DEFAULT_CALL_FORMAT, TOOLS[tools]), sampling_params, reasoning)


def test_thoughts_are_no_answer() -> None:
    """A stop sequence and a call in them are neither; their tokens are counted, with those of the markers."""
    reader = thinking(SamplingParams(stops=("b",)), tools=True)
    tokens = [b"<think>", b"\n", b"ab", CALL, b"\n</think>", b"\n\n", b"x", b"aby"]
    thoughts = [ReasoningPiece("ab"), ReasoningPiece(CALL.decode())]
    assert read(reader, tokens) == [*thoughts, "x", "a"]
    assert (reader.stopped, reader.reasoning_tokens) == (True, 6)


def test_an_answer_without_thoughts_has_all_of_its_tokens() -> None:
    reader = thinking(SamplingParams(top_logprobs=0))
    assert read(reader, [b"<th", b"e>"]) == [
        ScoredText("<the>", [TokenLogprob("<th", -1.0, list(b"<th"), ()), TokenLogprob("e>", -2.0, list(b"e>"), ())])
    ]
    assert reader.reasoning_tokens == 0


def test_only_the_answer_behind_thoughts_has_log_probabilities() -> None:
    reader = thinking(SamplingParams(top_logprobs=0))
    tokens = [b"<th", b"ink>", b"a", b"</think>", b"\n", b"b"]
    assert read(reader, tokens) == [ReasoningPiece("a"), ScoredText("b", [TokenLogprob("b", -6.0, [98], ())])]
    assert reader.reasoning_tokens == 5


@pytest.mark.parametrize(
    ("tokens", "numbers"),
    [
        ([b"<think>", b"a</think>", b" b", b" c"], [3, 4]),
        ([b"<think>", b"a</think>b", b" c", b"d"], [3, 4]),
        ([b"<think>", b"a</th", b"ink>\n\xc3", b"\xa9", b"d"], [4, 5]),
    ],
)
def test_a_token_that_ends_a_thought_or_a_blank_line_moves_no_others(tokens: list[bytes], numbers: list[int]) -> None:
    """Of a token that was sampled in a thought, the text that it begins has no score."""
    texts = [part for part in read(thinking(SamplingParams(top_logprobs=0)), tokens) if isinstance(part, ScoredText)]
    entries = [one for text in texts for one in text.logprobs]
    assert [round(-one.logprob) for one in entries] == numbers
    shown = "".join(text.text for text in texts).encode()
    assert shown.endswith(b"".join(bytes(one.bytes) for one in entries))
    assert all(tokens[number - 1].endswith(bytes(one.bytes)) for number, one in zip(numbers, entries, strict=True))


def test_thoughts_that_do_not_end_are_told_to_the_end() -> None:
    assert read(thinking(SamplingParams()), [b"<think>", b"a </thi"]) == [ReasoningPiece("a"), ReasoningPiece(" </thi")]
