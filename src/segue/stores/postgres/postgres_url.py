"""The URL of a PostgreSQL store. Pure, and without libpq, so that a configuration can be checked where it is missing.

What segue does not know of the query goes to libpq. Not here: connecting (`connections`).
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode

import msgspec

#: How a URL of this store begins.
SCHEMES = ("postgresql://", "postgres://")

#: What libpq is told unless the URL says otherwise. A server that is gone is noticed within half a minute, even if no
#: packet comes back. One of several hosts that only reads is passed over.
_DEFAULTS = {
    "application_name": "segue",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "target_session_attrs": "read-write",
    "tcp_user_timeout": "15000",
}

_MOST_CONNECTIONS = 1000
_LONGEST_WAIT_S = 3600.0


class PostgresUrl(msgspec.Struct, frozen=True):
    """Where the records are. `conninfo` is for libpq and may hold a password; `place`, for messages, holds none."""

    conninfo: str
    place: str
    pool_size: int = 8
    """How many connections a gateway has at most."""
    wait_s: float = 15.0
    """How long a call waits for a server that is away, a failover included, until it fails."""
    statement_timeout_s: float = 10.0
    """How long a statement may run on the server."""

    def __repr__(self) -> str:
        """Without the password."""
        return f"PostgresUrl({self.place!r})"


def is_postgres(url: str) -> bool:
    """Tell whether a URL names this store."""
    return url.startswith(SCHEMES)


def parse_postgres_url(url: str) -> PostgresUrl:
    """Parse a URL. Raises `ValueError`, whose message holds nothing secret."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    if "#" in rest or "#" in query:
        raise ValueError("the URL of a PostgreSQL store has no fragment: write a '#' of a password as %23")
    place = f"{scheme}://{rest.rpartition('@')[2]}"
    given = dict(parse_qsl(query, keep_blank_values=True))
    own = _own_settings(given)
    settings = {**_DEFAULTS, **{name: value for name, value in given.items() if name not in _OWN}}
    settings["options"] = " ".join(filter(None, (_options(own.statement_timeout_s), given.get("options"))))
    conninfo = f"{scheme}://{rest}?{urlencode(settings, quote_via=quote)}"
    return msgspec.structs.replace(own, conninfo=conninfo, place=place)


#: The options of the query that are ours.
_OWN = ("pool_size", "wait_s", "statement_timeout_s")


def _own_settings(given: dict[str, str]) -> PostgresUrl:
    unset = PostgresUrl("", "")
    return msgspec.structs.replace(
        unset,
        pool_size=int(_number(given, "pool_size", unset.pool_size, _MOST_CONNECTIONS)),
        wait_s=_number(given, "wait_s", unset.wait_s, _LONGEST_WAIT_S),
        statement_timeout_s=_number(given, "statement_timeout_s", unset.statement_timeout_s, _LONGEST_WAIT_S),
    )


def _options(statement_timeout_s: float) -> str:
    """Return the settings of each session.

    Rows are locked first and judged in the next statement: that needs a new snapshot for each statement.
    """
    timeout_ms = round(statement_timeout_s * 1000)
    settings = {
        "default_transaction_isolation": "read\\ committed",
        "statement_timeout": timeout_ms,
        "lock_timeout": timeout_ms // 2,
        "idle_in_transaction_session_timeout": 3 * timeout_ms,
    }
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def _number(given: dict[str, str], name: str, default: float, most: float) -> float:
    text = given.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 1 <= value <= most:
        raise ValueError(f"{name} of a PostgreSQL store is a number from 1 to {most:g}")
    return value
