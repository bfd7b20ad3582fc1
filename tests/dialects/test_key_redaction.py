"""No part of a key is left in what a provider says, however it quotes it; and little else is lost."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segue.dialects.key_redaction import REDACTED, KeyRedactor
from tests.strategies import examples

#: A key of each provider, as they look.
KEYS = {
    "OpenAI": "sk-proj-Zq8Rw1Xt5Yb3Nc7Mv9La2Kd6Jf4Hg0Ps-Ew_Td3BlbkFJQz",
    "Anthropic": "sk-ant-api03-Qw7Er5Ty3Ui1Op9As8Df6Gh4Jk2Lz0Xc-VbNmAA",
    "Gemini": "AIzaSyD7qW9eR3tY5uI1oP2aS4dF6gH8jK0lZxC",
    "Azure": "5f0c7e2b9a4d4c1f8e3b6a7d2c9f0e1b",
    "Mistral": "Hk7Lm2Np9Qr4St6Uv1Wx3Yz8Ab5Cd0Ef",
    "DeepSeek": "sk-3b7e9c1d5f2a4860b1c3d5e7f9a0fcc2",
    "Groq": "gsk_Wd8Fj2Kl5Mn7Pq9Rs1Tv3Xy6Za4Bc0De",
    "xAI": "xai-Nb6Vc4Xz2Lk8Jh0Gf1Ds3Aq5We7Rt9Yu",
    "OpenRouter": "sk-or-v1-8d1f4b7e0a3c6d9e2f5b8a1c4d7e0f3b",
    "Together": "tgp_v1_Gh5Jk7Lm9Np1Qr3St6Uv8Wx0Yz2Ab4Cd",
    "Fireworks": "fw_3ZkT8bQ5nV2xR7wL9mC4",
    "Moonshot": "sk-Lp9Ok8Ij7Uh6Yg5Tf4Rd3Es2Wa1QzXcV",
    "DashScope": "sk-a9f3c5e7b1d24f6880aa12bb34cc56dd",
    "in no form that is known": "Tr0ub4dor&3-correct/horse=battery",
}
every_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)

#: What providers say of a key, with its beginning, its end, and the whole of it.
SAYINGS = [
    "Incorrect API key provided: {first}****{last}. You can find your API key at https://platform.openai.com/account/api-keys.",
    "Incorrect API key provided: {first}***************************************{last}.",
    "Incorrect API key provided: {two}***{two_last}. You can obtain an API key from https://console.x.ai.",
    "invalid x-api-key {first}...{last}",
    "Authentication Fails, Your api key: ****{last} is invalid",
    "Authentication Fails, Your api key: ****{last} is invalid".upper(),
    "Rate limit reached for the key …{last}",
    "Key {first}•••••••• has no credit left",
    "The API key ending in {last} has been revoked.",
    "The API key that ends with '{last}' has been revoked.",
    "API key starting with {first} is not allowed here",
    "This key (last four: {last}) is over its quota",
    "API key {key} is over its quota",
    "{key}",
    "header was 'Authorization: Bearer {key}'",
    "header was 'Authorization: Basic {basic}'",
    "x-api-key: {key}, anthropic-version: 2023-06-01",
    "POST https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?key={quoted}&alt=sse",
    '{{"error":{{"message":"bad key \\"{key}\\""}}}}',
    "the key in base64: {base64}, or {url_base64}",
    "the key in hex: {hex}, or 0x{upper_hex}",
    "the bytes {bytes}, or {colons}",
    "https://example.com/?q={percents} is no URL",
    "the half of it in hex: {half_hex}",
    "({first}) is no key",
    "first {first}, last {last}",
    "{first}..{last}",
    "{first}**{last}",
    "{half} was cut",
    "cut was {other_half}",
]


@pytest.mark.untraced
@pytest.mark.parametrize("saying", SAYINGS)
@every_key
def test_nothing_of_a_key_is_left_however_it_is_quoted(key: str, saying: str) -> None:
    parts = {
        "key": key,
        "quoted": quote(key, safe=""),
        "first": key[:12],
        "last": key[-4:],
        "two": key[:2],
        "two_last": key[-2:],
        "half": key[: len(key) // 2],
        "other_half": key[len(key) // 2 :],
        "basic": b64encode(f"user:{key}".encode()).decode(),
        "base64": b64encode(key.encode()).decode(),
        "hex": key.encode().hex(),
        "upper_hex": key.encode().hex().upper(),
        "half_hex": key.encode().hex()[: len(key)],
        "bytes": key.encode().hex(" "),
        "colons": key.encode().hex(":"),
        "percents": "".join(f"%{byte:02X}" for byte in key.encode()),
        "url_base64": urlsafe_b64encode(key.encode()).decode().rstrip("="),
    }
    said = saying.lower() if saying.isupper() else saying
    text = said.format(**parts)
    text = text.upper() if saying.isupper() else text
    told = KeyRedactor([key]).redact(text).lower()
    assert REDACTED in told
    for at in range(len(key) - 3):
        piece = key[at : at + 4].lower()
        assert piece in saying.lower() or piece not in told.replace(REDACTED, " ")
    assert parts["basic"][8:20].lower() not in told
    assert parts["base64"][:6].lower() not in told
    for form in ("hex", "bytes", "colons", "percents"):
        assert not any(parts[form][at : at + 18].lower() in told for at in range(len(parts[form]) - 17))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Incorrect API key provided: sk-proj-abcd****wxyz.", "Incorrect API key provided: [redacted]."),
        ("invalid x-api-key sk-ant-abc...xyz", "invalid x-api-key [redacted]"),
        ("Your api key: ****abcd is invalid", "Your api key: [redacted] is invalid"),
        ("provided: na***ys. You can", "provided: [redacted]. You can"),
        ("key=AIzaSyA1234 rejected", "[redacted] rejected"),
        ("https://example.com/?key=hunter2&x=1", "https://example.com/?[redacted]&x=1"),
        ("use api_key='hunter2'", "use api_key='[redacted]'"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "token [redacted]"),
        ("AKIAIOSFODNN7EXAMPLE is no key", "[redacted] is no key"),
        ("the token ending in wxyz", "the token ending in [redacted]"),
    ],
)
def test_what_looks_like_a_key_goes_though_it_is_not_known(text: str, told: str) -> None:
    """A router may quote the key of the provider behind it."""
    assert KeyRedactor().redact(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Rate limit reached for gpt-5 in organization org-abc123 on tokens per min (TPM): Limit 30000, Used 29000.",
        "messages.1.content.0: must start with a user message ... and so on",
        "prompt is too long: 215000 tokens > 200000 maximum",
        "Invalid schema for function 'look': ... is not valid under **any** of the given schemas",
        "An error occurred. Include the request ID req_011CTcq4Zv7wB2 in your message: https://help.openai.com/",
        "'max_tokens' must be in the range 1...8192",
        "Invalid API key. Get one at https://console.example.com/keys",
        "You can find your API key at https://platform.openai.com/account/api-keys.",
        "auth header format should be Bearer token",
        "model 'qwen3-coder:30b-a3b-q4_K_M' not found",
        "Ein Schlüssel fehlt … leider",
    ],
)
def test_what_has_no_key_in_it_stays_as_it_is(text: str) -> None:
    for keys in ([], [KEYS["OpenAI"]], list(KEYS.values())):
        assert KeyRedactor(keys).redact(text) == text


def test_a_short_key_is_found_as_a_whole_word() -> None:
    redactor = KeyRedactor(["ollama", " ", "x\n"])
    assert redactor.redact("ollama: no ollamas for x, or y.") == "[redacted]: no ollamas for [redacted], or y."


def test_the_first_characters_of_a_key_in_base64_go() -> None:
    key = KEYS["Azure"]
    assert (
        KeyRedactor([key]).redact(f"it was {b64encode(key.encode())[:6].decode()} or so") == "it was [redacted] or so"
    )


@pytest.mark.parametrize("separator", ["-", "_"])
def test_four_characters_of_what_follows_the_public_part_of_a_key_go(separator: str) -> None:
    key = separator.join(("sk", "or", "v1", "Qw7Er5Ty3Ui1Op9As8Df"))
    assert KeyRedactor([key]).redact("it was Qw7E or so") == "it was [redacted] or so"


def test_a_key_in_a_url_goes_though_no_run_of_it_is_left_as_it_was() -> None:
    key = "ab&cd&ef&gh&ij"
    assert KeyRedactor([key]).redact(f"it was {quote(key, safe='')} or so") == "it was [redacted] or so"


@pytest.mark.parametrize(
    ("text", "told"), [("it was 5..b or so", "it was [redacted] or so"), ("it has 5.. or so", "it has 5.. or so")]
)
def test_a_beginning_and_an_end_of_one_character_are_a_key_and_one_alone_is_not(text: str, told: str) -> None:
    assert KeyRedactor([KEYS["Azure"]]).redact(text) == told


def test_a_key_of_eight_characters_has_parts() -> None:
    assert KeyRedactor(["qwzxkvjp"]).redact("it was qwzxkv or so") == "it was [redacted] or so"
    assert KeyRedactor(["qwzxkvj"]).redact("it was qwzxkv or so") == "it was qwzxkv or so"


def test_several_keys_go() -> None:
    told = KeyRedactor([KEYS["Groq"], KEYS["xAI"], KEYS["Groq"]]).redact(f"{KEYS['xAI'][4:]}, {KEYS['Groq'][5:]}")
    assert told == "[redacted], [redacted]"


@given(
    key=st.text(
        st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"), min_size=20, max_size=80
    ),
    before=st.text(max_size=30),
    after=st.text(max_size=30),
    cut=st.tuples(st.integers(0, 80), st.integers(6, 80)),
)
@settings(max_examples=examples(300))
def test_no_run_of_a_key_is_left(key: str, before: str, after: str, cut: tuple[int, int]) -> None:
    start, length = cut
    part = key[start : start + length]
    assume(len(part) >= 6)
    assert part.lower() not in KeyRedactor([key]).redact(f"{before}{part}{after}").lower()


@given(text=st.text(max_size=200), keys=st.lists(st.text(max_size=30), max_size=3))
@settings(max_examples=examples(300))
def test_any_text_is_read(text: str, keys: list[str]) -> None:
    redactor = KeyRedactor(keys)
    assert redactor.redact(text) == redactor.redact(text)


@pytest.mark.parametrize("text", ["." * 4000, "a." * 2000, "key " * 1000, "sk-" * 1500, "*" * 4000, "api key " * 500])
def test_a_long_text_is_read_in_one_go(text: str) -> None:
    assert isinstance(KeyRedactor([KEYS["OpenAI"]]).redact(text), str)
