"""How many bytes each tenant may have the gateway send and read to measure the way. Pure: the time is passed in."""

from __future__ import annotations

#: The bytes of one tenant in a window of so many seconds.
WINDOW_BYTES = 4 * 1024 * 1024
WINDOW_S = 10.0
#: A request costs at least so much: it is one, even if it is empty.
REQUEST_BYTES = 16 * 1024


class TransferAllowance:
    """The allowance of every tenant. What lies in the past is forgotten, so it is as large as those who ask now."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}

    def take(self, tenant: str, size: int, now: float) -> float:
        """Take the bytes of one request; return 0, or after how many seconds they will be there if they are not."""
        self._windows = {name: window for name, window in self._windows.items() if now < window[0] + WINDOW_S}
        began_at, used = self._windows.get(tenant, (now, 0))
        cost = max(size, REQUEST_BYTES)
        if used + cost > WINDOW_BYTES:
            return began_at + WINDOW_S - now
        self._windows[tenant] = (began_at, used + cost)
        return 0.0
