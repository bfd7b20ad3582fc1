"""The benchmark of other servers that keep histories, beside ours: the same turns, against the same scripted provider.

`catalogue` says what the peers are and how they are started, `installed` finds them, `running` starts one, `provider`
is what they ask, `chain` holds a conversation through them, `standings` compares, `measure` puts it together, and
`view` shows it. Not here: the measuring of one foreign server, which `segue.bench.endpoint` does.
"""

from __future__ import annotations
