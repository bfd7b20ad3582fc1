"""Takes keys out of what a provider says, before a client or a log gets it.

Providers quote the key that they refuse, or that is out of credit: whole, masked (`sk-proj-abcd****wxyz`, `****wxyz`,
`sk-ant-abc...xyz`), by its end ("ending in wxyz"), in a URL, in a header line, in base64 or in hex. Whatever shares a
run of characters with a known key goes, and so does what has the shape of a key, since a provider may quote keys that
are not known here. Too much goes rather than too little. Not here: which texts pass through this
(`upstreams.failures`).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote

#: What stands in the place of a key.
REDACTED = "[redacted]"

#: A run of so many characters of a key is a part of it, and no accident.
_RUN = 6
#: A whole word of so many characters is taken for the beginning or the end of a key if it is the same.
_END = 4
#: Shorter keys than this have no parts; they are found as whole words only.
_SHORT_KEY = 8
#: Of a longer key, such as a private key in a header line, so much is looked for.
_MAX_KEY = 4096

_MASK = r"*•…#"
_WORD_CHAR = rf"[\w\-+/=~{_MASK}]"
#: The dot at the end of a sentence is not part of a word.
_WORD = re.compile(rf"\.{{0,8}}{_WORD_CHAR}++(?:\.++{_WORD_CHAR}++)*+(?:\.{{2,8}})?")
_MASKED = re.compile(rf"\*{{3}}|[•…]|[{_MASK}]{{3}}")
_LETTER = re.compile(r"[^\W_]")
_BETWEEN = re.compile(rf"\.{{2,}}|[{_MASK}]+")

_TOKEN = rf"[\w\-+/=~.{_MASK}]"
#: How the keys of providers begin: OpenAI, Anthropic, OpenRouter, DeepSeek, Moonshot, DashScope (sk-), Groq, xAI,
#: Fireworks, Hugging Face, Replicate, NVIDIA, Perplexity, Cerebras, Together, Google, AWS, GitHub, and JSON Web Tokens.
_PREFIXES = (
    *("sk-", "sk_", "pk-", "pk_", "rk_", "gsk_", "xai-", "fw_", "hf_", "r8_", "nvapi-", "pplx-", "csk-", "tgp_v1_"),
    *("aiza", "akia", "asia", "ya29.", "ghp_", "gho_", "github_pat_", "eyj"),
)
_PREFIXED = re.compile(
    rf"(?<![^\W_])(?:{'|'.join(map(re.escape, _PREFIXES))}){_TOKEN}{{2,}}{_WORD_CHAR}", re.IGNORECASE
)

_HINTS = ("key", "token", "auth", "credential", "bearer", "basic")
_NAMES = (
    r"(?:api[ _-]?key|x-api-key|authorization|access[ _-]?token|(?:secret|subscription|account)[ _-]?key|credentials?)"
)
_SHOWN = re.compile(
    # In a header line, and in a URL, as Gemini takes it.
    rf"\b(?:Bearer|Basic)\s+(?=\S*[\d{_MASK}]|\S{{20}})(?P<header>{_TOKEN}{{3,}}{_WORD_CHAR})"
    r"|[?&](?:key|api[_-]?key|token|access_token)=(?P<query>[^&\s\"']+)"
    # Behind its name: "Incorrect API key provided: xa***", "Your api key: ****abcd is invalid", "api_key='…'".
    rf"|\b{_NAMES}\b[\"']?(?: \w+)?\s*[:=]\s*[\"'`(\[]*(?!https?://|Bearer|Basic)(?P<named>[^\s\"'`)\],;]+[^\s\"'`)\],;.])"
    # By its beginning or end: "the API key ending in wxyz".
    rf"|\b(?:key|token)\b.{{0,60}}?\b(?:end|start|begin|prefix|suffix)\w*(?: \w+)? ?(?:in|with|by|is|[:=])"
    rf"\s*[\"'`(\[]*(?P<ending>{_TOKEN}+{_WORD_CHAR})",
    re.IGNORECASE,
)

_Span = tuple[int, int]


class KeyRedactor:
    """Takes out what these keys, and any, may be recognised by. What it knows of them is made when it is needed."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key for key in dict.fromkeys(map(str.strip, keys)) if key]
        self._known: list[_KnownKey] | None = None

    def redact(self, text: str) -> str:
        """Return a text without any part of the known keys, and without anything that looks like a key."""
        if self._known is None:
            self._known = [_KnownKey(key[:_MAX_KEY]) for key in self._keys]
        lower = text.lower()
        spans = [*_key_like(text, lower), *_masked(text, self._known)]
        for key in self._known:
            spans += key.find(text, lower)
        return _without(text, spans) if spans else text


# --- what looks like a key -------------------------------------------------------------------------------------------


def _key_like(text: str, lower: str) -> Iterator[_Span]:
    """Find what has the shape of a key, or stands where one belongs."""
    if any(prefix in lower for prefix in _PREFIXES):
        yield from (found.span() for found in _PREFIXED.finditer(text))
    if any(hint in lower for hint in _HINTS):
        yield from (found.span(found.lastgroup or 0) for found in _SHOWN.finditer(text))


def _masked(text: str, known: list[_KnownKey]) -> Iterator[_Span]:
    """Find words with a mask in them. Two stars or dots are one only if what they join is of a known key."""
    if not _BETWEEN.search(text):
        return
    for word in _WORD.finditer(text):
        if (_MASKED.search(word[0]) and _LETTER.search(word[0])) or any(
            key.is_quoted(word[0].lower()) for key in known
        ):
            yield word.span()


# --- parts of a known key --------------------------------------------------------------------------------------------


class _KnownKey:
    """What one key is recognised by."""

    def __init__(self, key: str) -> None:
        self._key = key.lower()
        self._whole = re.compile(rf"(?<![\w\-]){re.escape(key)}(?![\w\-])")
        self._runs: dict[int, set[str]] = {}  # by their length
        for form, width in _forms(key):
            length = _RUN * width
            runs = self._runs.setdefault(length, set())
            runs.update(form[at : at + length] for at in range(len(form) - length + 1))
        starts = [0, *(found.end() for found in re.finditer(r"[-_]", self._key))]
        self._starts = [self._key[start:] for start in starts if len(self._key) - start >= _END]

    def find(self, text: str, lower: str) -> Iterator[_Span]:
        """Find what a text has in common with the key."""
        if len(self._key) < _SHORT_KEY:
            yield from (found.span() for found in self._whole.finditer(text))
            return
        for length, runs in self._runs.items():
            yield from ((at, at + length) for at in range(len(lower) - length + 1) if lower[at : at + length] in runs)
        if self._key[-_END:] in lower or any(start[:_END] in lower for start in self._starts):
            yield from (word.span() for word in _WORD.finditer(text) if self._is_end(word[0].strip(".").lower()))

    def is_quoted(self, word: str) -> bool:
        """Tell whether a word has the beginning and the end of the key, or one of them, and a mask for the rest."""
        pieces = _BETWEEN.split(word)
        first, last = pieces[0], pieces[-1]
        return (
            len(pieces) > 1 and len(first) + len(last) > 1 and self._key.startswith(first) and self._key.endswith(last)
        )

    def _is_end(self, word: str) -> bool:
        """Tell whether a word is the end of the key, or the beginning of it or of what follows its public part."""
        return len(word) >= _END and (self._key.endswith(word) or any(key.startswith(word) for key in self._starts))


def _forms(key: str) -> Iterator[tuple[str, int]]:
    """Yield how a key is written, and how many characters stand for one of it.

    It is written as it is, in a URL with and without need, in hex with and without a mark between the bytes, and in
    base64, wherever in the encoded bytes it stands.
    """
    data = key.encode("utf-8", "replace")
    yield key.lower(), 1
    yield quote(data, safe="").lower(), 1
    yield data.hex(), 2
    for between in "%: ":
        yield between + data.hex(between), 3
    for offset, foreign in enumerate((0, 2, 3)):  # characters that hold bits of what stands before the key
        inner = b64encode(b"\0" * offset + data).decode()[foreign:-4].lower()
        yield inner, 1
        yield inner.replace("+", "-").replace("/", "_"), 1


# --- taking out ------------------------------------------------------------------------------------------------------


def _without(text: str, spans: Iterable[_Span]) -> str:
    """Return a text without these spans, each with the rest of its word."""
    covered = bytearray(len(text))
    for start, end in spans:
        covered[start:end] = b"\1" * (end - start)
    for word in _WORD.finditer(text):
        start, end = word.span()
        if any(covered[start:end]):
            covered[start:end] = b"\1" * (end - start)
    pieces: list[str] = []
    done = 0
    for run in re.finditer(rb"\x01+", covered):
        pieces += [text[done : run.start()], REDACTED]
        done = run.end()
    return "".join((*pieces, text[done:]))
