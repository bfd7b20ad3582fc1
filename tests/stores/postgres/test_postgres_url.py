"""The URL of a PostgreSQL store: what libpq gets of it, what is ours, and what is never shown."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from segue.stores.postgres.postgres_url import is_postgres, parse_postgres_url


def test_libpq_gets_what_it_knows_and_our_defaults() -> None:
    url = parse_postgres_url("postgresql://me:p%40ss@a:1,b:2/db?sslmode=require&connect_timeout=1&pool_size=3&wait_s=2")
    info = conninfo_to_dict(url.conninfo)
    assert (info["host"], info["port"], info["dbname"], info["password"]) == ("a,b", "1,2", "db", "p@ss")
    assert (info["sslmode"], info["connect_timeout"], info["target_session_attrs"]) == ("require", "1", "read-write")
    assert (url.pool_size, url.wait_s, url.statement_timeout_s) == (3, 2.0, 10.0)
    assert {"pool_size", "wait_s"}.isdisjoint(info)


def test_each_session_has_time_outs_and_sees_what_was_committed() -> None:
    """Options of the operator come after ours, so that they hold."""
    url = parse_postgres_url("postgresql:///db?statement_timeout_s=4&options=-c%20search_path%3Dsegue")
    options = conninfo_to_dict(url.conninfo)["options"]
    assert options == (
        "-c default_transaction_isolation=read\\ committed -c statement_timeout=4000 -c lock_timeout=2000"
        " -c idle_in_transaction_session_timeout=12000 -c search_path=segue"
    )


def test_a_plus_is_a_plus() -> None:
    assert (
        conninfo_to_dict(parse_postgres_url("postgresql:///db?application_name=a%2Bb").conninfo)["application_name"]
        == "a+b"
    )


def test_what_is_shown_holds_no_password() -> None:
    url = parse_postgres_url("postgres://me:hunter2@host/db?password=hunter2")
    assert url.place == "postgres://host/db"
    assert "hunter2" not in repr(url)


@pytest.mark.parametrize("query", ["pool_size=0", "pool_size=x", "wait_s=nan", "statement_timeout_s=1e9"])
def test_what_is_no_number_in_the_bounds_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match=r"of a PostgreSQL store is a number from 1 to"):
        parse_postgres_url(f"postgresql://me:hunter2@host/db?{query}")


def test_a_fragment_is_refused_since_a_password_may_have_one() -> None:
    with pytest.raises(ValueError, match="write a '#' of a password as %23") as caught:
        parse_postgres_url("postgresql://me:hunter2#@host/db")
    assert "hunter2" not in str(caught.value)


def test_its_scheme_tells_it() -> None:
    assert is_postgres("postgres://host/db")
    assert not is_postgres("sqlite:///postgresql.db")
