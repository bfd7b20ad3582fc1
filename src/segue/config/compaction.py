"""`[compaction]`: how a history that is too long becomes a summary, and which secrets seal it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

#: What the model of a conversation is asked, after all that it has seen.
_PROMPT = """\
Stop here and write a summary of this conversation. It will stand in place of the conversation: whoever goes on with \
the work sees the messages of the user and your summary, and nothing else of what was said and done.

Write down what is needed to go on without a loss:
- what the user wants, and what the user has decided or ruled out;
- what was done so far and what came of it, with the names of files, functions, commands, addresses and figures;
- what was found out, also what did not work and why;
- what is still open, and the next step.

Call no tool. Write the summary and nothing else."""

#: What stands before the summary where a model reads it.
_LEAD = """\
This is a summary of the conversation so far, in place of what was said and done. Go on from there: the work that it \
tells of is done, and what it says was found is known."""


class CompactionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[compaction]`: how the gateway compacts a history."""

    secrets_env: Annotated[
        list[str],
        Meta(
            description=(
                "Variables that hold secrets of 32 characters or more. The first seals summaries, and each opens what "
                "it has sealed. Without any, there is one in a file beside the store's; a store in memory has one of "
                "its own, which dies with it."
            )
        ),
    ] = []
    threshold_tokens: Annotated[
        int, Meta(ge=1000, description="When to compact where a request asks for it and names no threshold.")
    ] = 100_000
    retained_tokens: Annotated[
        int, Meta(ge=0, description="The newest messages of the user that stay as they are, at 4 bytes a token.")
    ] = 64_000
    summary_tokens: Annotated[
        int, Meta(ge=256, le=32_768, description="Longest summary; one that is cut there is not used.")
    ] = 8192
    prompt: Annotated[str, Meta(min_length=1, description="What asks the model for the summary.")] = _PROMPT
    lead: Annotated[str, Meta(min_length=1, description="What stands before the summary where a model reads it.")] = (
        _LEAD
    )
