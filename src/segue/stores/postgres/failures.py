"""What errors of PostgreSQL mean: which of them pass, and what an operator reads about the others.

A message never quotes a value: of errors about data only the kind is told. Not here: trying again (`connections`).
"""

from __future__ import annotations

import psycopg
from psycopg.errors import lookup

from segue.stores.interface import StoreError

#: Classes of SQLSTATE, and single ones, after which the same call may succeed elsewhere or later.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "25006")  # the server goes, comes, or has become a replica
_AGAIN = ("40001", "40003", "40P01")  # another transaction came in between

_ADVICE = {
    "08": "check that the server runs and can be reached",
    "22": "the server does not take a value that was to be stored",
    "25006": "the server only reads: name the primary server, or all hosts of the cluster",
    "28": "check the user, the password and pg_hba.conf",
    "3D": "create the database first",
    "42501": "grant the user the rights to its tables",
    "42": "the tables are not those of this version of segue",
    "53100": "the disk of the server is full; free some space, what is already stored is safe",
    "53": "the server has no room for this: raise max_connections, or lower pool_size",
    "55P03": "another transaction has held a lock for too long",
    "57014": "the statement took too long, or was cancelled",
    "57P": "the server stops or starts",
    "58": "the server could not read or write its files; its log says why",
    "XX": "the server has found an internal error or damage; its log says more",
}
_AWAY = "check that the server runs and can be reached"


def is_lost(error: psycopg.Error) -> bool:
    """Tell whether the connection is of no use any more."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_LOST)


def is_passing(error: psycopg.Error) -> bool:
    """Tell whether the same call may succeed if it is made again."""
    return is_lost(error) or error.sqlstate in _AGAIN


def explain(error: psycopg.Error, place: str) -> StoreError:
    """Say what an error means for the operator of the gateway, and what to do about it."""
    state = error.sqlstate
    if state is None:
        return StoreError(f"{place}: {first_line(error)}: {_AWAY}")
    advice = next((_ADVICE[key] for key in (state, state[:3], state[:2]) if key in _ADVICE), "its log says more")
    return StoreError(f"{place}: {_said(error, state)} ({state}): {advice}")


def first_line(error: psycopg.Error) -> str:
    """Return the first line of what libpq says of a connection: it names hosts and users, and no password."""
    return str(error).partition("\n")[0]


def _said(error: psycopg.Error, state: str) -> str:
    """Return what the server said, but for errors about data, whose words may be those of a conversation."""
    if state.startswith("22"):
        return lookup(state).__name__
    return error.diag.message_primary or type(error).__name__
