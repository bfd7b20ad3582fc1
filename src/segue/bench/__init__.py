"""The benchmarks that `segue bench` runs. Each module at the top level is one benchmark: `gateway`, `dialects`,
`engine`, `documents`, `table` and `workload_table` measure; `capacity` and `advice` compute. `links` are the
networks that they know, `workloads` makes the traffic, `arms` are the servers and paths that a benchmark compares,
`meters` count bytes and time, and `reports` write the result and compare two. Not here: a judgement, except against
a budget.
"""

from __future__ import annotations
