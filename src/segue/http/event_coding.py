"""The content codings of event streams: gzip, and `segue-1`, which only segue's own ends know.

`segue-1` is the zlib format (RFC 1950) with a preset dictionary: what nearly every stream of compact events says, the
arguments of the tools that agents have, and words that are common in what models say. A turn over HTTP has nothing
before it to refer to, so most of a short one would be said as if it were new. The standard codings with a dictionary
(RFC 9842) begin with a digest of 32 bytes, which is a tenth of a short turn. `segue-1` stands for this dictionary
alone, so its bytes never change: another one gets another name. A client has to name the coding before it gets it. Not
here: which streams are encoded (`gateway.api.sse`), and other codings (`content_decoding`).
"""

from __future__ import annotations

import zlib
from typing import Final, Literal

from segue.http.content_decoding import ContentDecoder, dictionary_decoder

StreamCoding = Literal["gzip", "segue-1"]
GZIP: Final = "gzip"
PRESET: Final = "segue-1"

#: What streams are likely to say. What is most common comes last: near matches are shortest (RFC 1951, 3.2.5).
DICTIONARY: Final = rb"""
because however instead another without through before after again first second which would should could about
their other there these those where while only some more than then into over also from with this that have has
been were will can not all and for the one two of it is in on to a function method class object module
parameter argument value string number list default return returns raise error exception message response
request server client connection database table column query index user session token config option settings
version directory folder line code type name path data test tests result output input import package install
build project check fix change update create remove delete replace rename read write edit search list run open
close start stop load save

- **Note:** The file does not exist.
- Now I'll run the tests to check that everything works.
I've updated the implementation, and all tests pass now. Let me look at the code first. Let me check how this
is used. The problem is that Next, I will Here is what I changed:\n\n- `src/
Traceback (most recent call last):\n  File \"/usr/lib/python3/site-packages/\", line 1, in
<module>\nTypeError: ValueError: AssertionError:
def __init__(self, name: str) -> None:\n        self.\n        return None\n\n    if not :\n        raise \n
for in \n\nfrom __future__ import annotations\n\nimport os\nimport sys\n\n#!/usr/bin/env bash\nset
-e\n\nfunction const export default async await => {\n  return ;\n}\n
git status git diff --stat git log --oneline -5 git commit -m grep -rn --include=*.py find . -name ls -la cat
sed -n '1,200p' head -50 python -m pytest -q -x npm test npm run build make cargo test go test ./... cd
/home/user/ /tmp/ README.md pyproject.toml package.json src/main.py tests/test_ 2>&1 | tail -20
{\"plan\":[{\"step\":\"\",\"status\":\"completed\"},{\"status\":\"in_progress\"},{\"status\":\"pending\"}],
\"explanation\":\"\"}
{\"input\":\"*** Begin Patch\\n*** Update File: \\n@@\\n-\\n+\\n*** End Patch\"}
{\"file_path\":\"/\",\"old_string\":\"\",\"new_string\":\"\",\"replace_all\":false,\"offset\":1,\"limit\":200}
{\"pattern\":\"\",\"path\":\".\",\"glob\":\"**/*.py\",\"output_mode\":\"content\",\"query\":\"\",\"url\":\"https://
{\"cmd\":\"\",\"yield_time_ms\":1000,\"max_output_tokens\":
{\"content\":\"\",\"old\":\"\",\"new\":\"\",\"description\":\"Run the tests\",\"timeout\":120000}
data: [3,2,0,{"id":"fc_0000","call_id":"call_","name":"read_file","arguments":"{\"path\":\"","input":"
{\"command\":[\"bash\",\"-lc\",\"\"],\"workdir\":\"/home/\",\"timeout_ms\":120000}"},[10,0,15,4]]

data: [3,2,0,{"id":"rs_0000","type":"reasoning","status":"completed","summary":[
{"type":"summary_text","text":""}],"encrypted_content":"gAAAAAB"},[10,0,72,16],1

data: [1,2,1,{"id":"fc_0001","call_id":"call_","name":"
data: [14,2,0,{"id":"msg_0000","content":[{"text":""}]},[11,0,16,1,29,2,37,16,38,3],2147226354]

data: [4,1,0,0,0,"msg_0000",4,"
data: [1,3,12,[10000,8000,0,100,0]]

data: [DONE]

data: [0,0,"resp_0123456789abcdef",1796010760]

data: [3,2,0,{"id":"fc_0000","call_id":"call_","name":"
data: [4,1,2,0,0,"rs_0000",3,"**
data: [4,1,0,0,0,"msg_0000",4,"The I
data: [12,"
"""

_GZIP_WRAPPING: Final = 16 + zlib.MAX_WBITS


class EventEncoder:
    """Encodes one stream. What was fed before a `flush` can be decoded as soon as that has come."""

    def __init__(self, coding: StreamCoding) -> None:
        if coding == PRESET:
            self._deflate = zlib.compressobj(wbits=zlib.MAX_WBITS, zdict=DICTIONARY)
        else:
            self._deflate = zlib.compressobj(wbits=_GZIP_WRAPPING)

    def feed(self, data: bytes) -> bytes:
        """Take some of the stream; return what is encoded by now."""
        return self._deflate.compress(data)

    def flush(self) -> bytes:
        """Return the rest of what was fed.

        An empty block of 10 bits follows it, as in SSH and PPP; that of `Z_SYNC_FLUSH` has 35 to 42.
        """
        return self._deflate.flush(zlib.Z_PARTIAL_FLUSH)

    def end(self) -> bytes:
        """Return the rest and the end of the stream."""
        return self._deflate.flush()


def preset_decoder() -> ContentDecoder:
    """Return a decoder of `segue-1`. It checks that the dictionary is the one that was used (RFC 1950, 2.2: DICTID)."""
    return dictionary_decoder(DICTIONARY)


def stream_coding(accepted: str, *, preset: bool) -> StreamCoding | None:
    """Return the coding for a client with this `Accept-Encoding`; `preset`: the dictionary suits the stream."""
    named = frozenset(filter(None, map(_wanted, accepted.lower().split(","))))
    if preset and PRESET in named:
        return PRESET
    return GZIP if GZIP in named else None


def _wanted(one: str) -> str | None:
    """Return the name of a coding, unless its weight is zero (RFC 9110, 12.4.2)."""
    coding, _, weight = one.replace(" ", "").partition(";")
    return None if weight in {"q=0", "q=0.0", "q=0.00", "q=0.000"} else coding
