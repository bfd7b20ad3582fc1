"""What providers' errors are called here: by their words, and by the status that they come with or name."""

from __future__ import annotations

from typing import get_args

import pytest

from segue.dialects.provider_errors import (
    DOCUMENTED,
    STATUSES,
    WORDS,
    ProviderError,
    code_of,
    code_of_word,
    documented_code,
    failure_of,
)
from segue.protocol.problems import Code
from segue.protocol.responses import Failure

EVERY_WORD = [(word, code) for code, words in WORDS.items() for word in words]


@pytest.mark.parametrize(("word", "code"), EVERY_WORD, ids=[word for word, _ in EVERY_WORD])
def test_a_word_is_known_in_every_spelling(word: str, code: Code) -> None:
    camel = "".join(part.capitalize() for part in word.replace(".", "_").split("_"))
    for spelling in (word, word.upper(), word.replace("_", "-"), word.replace("_", " "), camel, f"{camel}Exception"):
        assert code_of_word(spelling) == code


@pytest.mark.parametrize("word", ["", "error", "tokens", "requests", "x" * 5000, "invalid_api_key" + " " * 80])
def test_another_word_is_not_known(word: str) -> None:
    assert code_of_word(word) is None


def test_every_code_that_is_given_is_one_of_ours() -> None:
    assert {*WORDS, *STATUSES.values()} <= {*get_args(Code)}


@pytest.mark.parametrize(("status", "code"), STATUSES.items())
def test_a_number_in_an_error_means_what_the_status_means(status: int, code: Code) -> None:
    assert code_of(ProviderError(), status) == code
    assert code_of(ProviderError(status=status)) == code
    assert code_of(ProviderError(status=status), 200) == code, "a success says nothing"
    assert code_of(ProviderError(status=status), 400) == "upstream_rejected", "the status of HTTP comes first"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "upstream_rejected"),
        (413, "upstream_rejected"),
        (499, "upstream_rejected"),
        (500, "upstream_error"),
        (502, "upstream_error"),
        (599, "upstream_error"),
        (301, "upstream_error"),
        (None, "upstream_error"),
    ],
)
def test_any_other_status_says_whose_fault_it_is(status: int | None, code: Code) -> None:
    assert code_of(ProviderError(), status) == code


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        # DeepSeek, https://api-docs.deepseek.com/quick_start/error_codes: the code is the same in all of them.
        (("invalid_request_error", "authentication_error"), 401, "upstream_unauthorized"),
        (("invalid_request_error", "authentication_error"), None, "upstream_unauthorized"),
        (("invalid_request_error", "unknown_error"), 402, "insufficient_quota"),
        (("invalid_request_error",), 401, "upstream_unauthorized"),
        (("invalid_request_error",), 429, "rate_limit_exceeded"),
        (("invalid_request_error",), 503, "server_overloaded"),
        (("invalid_request_error",), 500, "upstream_rejected"),
        (("invalid_request_error",), 400, "upstream_rejected"),
        (("server_error",), 503, "server_overloaded"),
        (("server_error",), 500, "upstream_error"),
        (("server_error",), 400, "upstream_rejected"),
        (("insufficient_quota",), 429, "insufficient_quota"),
        (("rate_limit_exceeded", "tokens"), 413, "rate_limit_exceeded"),
        (("overloaded_error",), 500, "server_overloaded"),
        (("kettle_on_fire",), None, "upstream_error"),
        (("kettle_on_fire",), 400, "upstream_rejected"),
    ],
)
def test_a_word_that_says_more_comes_first_then_the_status(
    words: tuple[str, ...], status: int | None, code: Code
) -> None:
    assert code_of(ProviderError(words=words), status) == code


@pytest.mark.parametrize(
    ("message", "words", "status", "code"),
    [
        ("prompt is too long: 9 > 8", ("invalid_request_error",), 400, "context_length_exceeded"),
        ("prompt is too long: 9 > 8", (), None, "context_length_exceeded"),
        ("prompt is too long: 9 > 8", (), 413, "context_length_exceeded"),
        ("prompt is too long: 9 > 8", ("server_error",), 500, "context_length_exceeded"),
        ("prompt is too long: 9 > 8", (), 429, "rate_limit_exceeded"),
        ("prompt is too long: 9 > 8", ("rate_limit_exceeded",), 413, "rate_limit_exceeded"),
        ("prompt is too long: 9 > 8", ("insufficient_quota",), 400, "insufficient_quota"),
        ("No.", ("context_length_exceeded",), 400, "context_length_exceeded"),
        ("No.", ("exceed_context_size_error",), 400, "context_length_exceeded"),
    ],
)
def test_a_conversation_that_is_too_long(message: str, words: tuple[str, ...], status: int | None, code: Code) -> None:
    """By its code, or by its words; but never where a rate or a quota is the limit."""
    assert code_of(ProviderError(message, words), status) == code


@pytest.mark.parametrize(
    "message",
    [
        "Incorrect API key provided: xa***. You can obtain an API key from https://console.x.ai.",
        "API key not valid. Please pass a valid API key.",
        "API Key not found. Please pass a valid API key.",
        "Authentication Fails, Your api key: ****fcc2 is invalid",
        "Invalid API Key",
        "Invalid API-key provided.",
        "invalid x-api-key",
        "No auth credentials found",
        "Invalid Authentication",
        "The API key you provided is invalid.",
        "Access denied due to invalid subscription key or wrong API endpoint: missing API key",
    ],
)
def test_a_key_that_is_refused_without_a_status_or_a_code(message: str) -> None:
    for status in (None, 400):
        assert code_of(ProviderError(message, ("invalid_request_error",)), status) == "upstream_unauthorized"


@pytest.mark.parametrize("message", ["Invalid value for 'tools[0].key'", "A key is missing in the schema", "No."])
def test_another_key_is_another_matter(message: str) -> None:
    assert code_of(ProviderError(message), 400) == "upstream_rejected"


def test_the_failure_of_a_turn_has_the_code_and_the_words() -> None:
    assert failure_of(ProviderError("Slow.", status=429)) == Failure("rate_limit_exceeded", "Slow.")
    assert failure_of(ProviderError()) == Failure("upstream_error", "The upstream failed without saying why.")
    coded = "The upstream failed without saying why, with the code '429'."
    assert failure_of(ProviderError(status=429)) == Failure("rate_limit_exceeded", coded)
    worded = "The upstream failed without saying why, with the code 'Throttling'."
    assert failure_of(ProviderError(words=("Throttling",), status=400)) == Failure("rate_limit_exceeded", worded)


def test_a_code_that_the_responses_api_documents_is_told_as_it_is() -> None:
    """All those of its SDK that say more than one of ours."""
    from openai.types.responses import ResponseError

    own = {"server_error", "rate_limit_exceeded"}
    assert set(get_args(ResponseError.model_fields["code"].annotation)) == DOCUMENTED | own
    for word in DOCUMENTED:
        code = code_of_word(word)
        assert code is not None
        assert code in {"upstream_rejected", "upstream_error"}
        assert failure_of(ProviderError("No.", (word, "invalid_request_error"))) == Failure(word, "No.")
        assert documented_code(ProviderError("No.", ("tokens", word)), code) == word
    assert documented_code(ProviderError("No.", ("invalid_value",)), "upstream_rejected") is None


def test_what_says_more_than_a_documented_code_is_told_in_its_place() -> None:
    error = ProviderError("prompt is too long: 9 > 8", ("invalid_prompt",), status=400)
    assert failure_of(error).code == "context_length_exceeded"
    assert documented_code(error, "context_length_exceeded") is None
