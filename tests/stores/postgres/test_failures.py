"""Errors of the server: which pass, and what is said of the others. No value is ever quoted."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from segue.stores.postgres.failures import explain, is_lost, is_passing


@pytest.mark.parametrize(
    ("error", "lost", "passing"),
    [
        (psycopg.OperationalError("the connection is closed"), True, True),
        (errors.AdminShutdown(), True, True),
        (errors.CannotConnectNow(), True, True),
        (errors.ReadOnlySqlTransaction(), True, True),
        (errors.ConnectionFailure(), True, True),
        (errors.SerializationFailure(), False, True),
        (errors.DeadlockDetected(), False, True),
        (errors.DiskFull(), False, False),
        (errors.QueryCanceled(), False, False),
        (errors.LockNotAvailable(), False, False),
        (psycopg.ProgrammingError("no server said this"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_passes_is_tried_again(error: psycopg.Error, lost: bool, passing: bool) -> None:
    assert (is_lost(error), is_passing(error)) == (lost, passing)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errors.DiskFull(), "the disk of the server is full"),
        (errors.OutOfMemory(), "the server has no room for this"),
        (errors.QueryCanceled(), "took too long"),
        (errors.InsufficientPrivilege(), "grant the user the rights"),
        (errors.UndefinedTable(), "not those of this version"),
        (errors.InvalidPassword(), "check the user, the password"),
        (errors.FdwError(), "its log says more"),
        (psycopg.OperationalError("connection refused\nmore"), "connection refused: check that the server runs"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_operator_reads_what_to_do(error: psycopg.Error, advice: str) -> None:
    message = str(explain(error, "postgresql://host/db"))
    assert message.startswith("postgresql://host/db: ")
    assert advice in message


@pytest.mark.postgres
def test_a_value_is_not_quoted(server: object) -> None:
    """The server's own words would be: invalid input syntax for type integer: "secret"."""
    from tests.postgres_server import PostgresServer

    assert isinstance(server, PostgresServer)
    with psycopg.connect(server.url("postgres")) as connection, pytest.raises(psycopg.DataError) as caught:
        connection.execute("SELECT 'secret'::integer")
    assert "secret" in str(caught.value)
    assert str(explain(caught.value, "x")) == (
        "x: InvalidTextRepresentation (22P02): the server does not take a value that was to be stored"
    )
