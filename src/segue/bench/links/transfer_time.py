"""How long a number of bytes takes on a link without loss: the closed formula for TCP's slow start.

The formula is the textbook's (Kurose and Ross, "Computer Networking": latency with a dynamic congestion window), with
the initial window of RFC 6928. The sender sends window after window. Before each window but the first it waits for the
first acknowledgement of the window before, unless that window keeps the bottleneck busy until then:

    time = set-up + n / rate + rtt / 2
         + sum over all windows but the last: max(0, segment / rate + rtt - window / rate)

The emulation (`segue.testing.pacing`) agrees with it, and loss only makes it later. Not here: loss and outages.
"""

from __future__ import annotations

from typing import Literal

from segue.testing.pacing import INITIAL_WINDOW_BYTES, SEGMENT_BYTES, LinkProfile

#: A new connection; one that was idle for longer than its retransmission timeout; one whose window is fully open.
ConnectionAge = Literal["new", "idle", "warm"]


def transfer_time_s(profile: LinkProfile, rate_bytes_s: float, size: int, *, age: ConnectionAge) -> float:
    """Return when the last byte arrives, counted from when the sender wants to send it. `size` is at least 1."""
    if size < 1:
        raise ValueError("there is nothing to send")
    set_up_s = profile.setup_rtts * profile.rtt_s if age == "new" else 0.0
    largest = profile.window_bytes
    window = largest if age == "warm" or not profile.slow_start else min(INITIAL_WINDOW_BYTES, largest)
    segment_s = min(SEGMENT_BYTES, size) / rate_bytes_s
    stalled_s, left = 0.0, size
    while left > window:
        stall_s = segment_s + profile.rtt_s - window / rate_bytes_s
        if stall_s <= 0:
            break  # later windows are larger still
        stalled_s += stall_s
        left -= window
        window = min(2 * window, largest)
    return set_up_s + size / rate_bytes_s + profile.rtt_s / 2 + stalled_s
