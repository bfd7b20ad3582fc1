"""The network links that benchmarks run over: `profiles` has the named links with the source of each number, and
`transfer_time` the closed formula for how long bytes take on one. Not here: emulating a link (`segue.testing.link`).
"""

from __future__ import annotations
