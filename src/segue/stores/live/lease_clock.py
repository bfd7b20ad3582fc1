"""The clock that leases are counted by, and for how much of a lease its holder counts on it.

Not here: what is leased (`redis_nodes`, `redis_places`).
"""

from __future__ import annotations

import sys
import time
from typing import Final

#: After so much of a lease its holder counts it as over: before anybody else does, however the clocks differ.
TRUSTED_SHARE: Final = 0.8


def boot_time() -> float:
    """Return a time that goes on while the process is stopped, and while the machine sleeps where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()
