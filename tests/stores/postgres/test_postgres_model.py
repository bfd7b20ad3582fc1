"""Random calls: PostgreSQL answers as the model of `tests/stores/test_model.py` does, and as the other stores."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from segue.stores.interface import Store
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_conformance import ALICE, BOB
from tests.stores.postgres.conftest import row_counts, truncate
from tests.stores.test_model import StoresAgree
from tests.strategies import examples

pytestmark = [pytest.mark.postgres, pytest.mark.deep]


def test_postgres_agrees_with_the_other_stores(database: PostgresUrl) -> None:
    """At the end, when all is erased, no row is left."""

    class PostgresAgrees(StoresAgree):
        def __init__(self) -> None:
            super().__init__()
            truncate(database)
            self.postgres: tuple[PostgresStore, ...] = (self.runner.run(PostgresStore.open(database)),)

        @property
        def stores(self) -> tuple[Store, ...]:
            return *super().stores, *self.postgres

        def teardown(self) -> None:
            (store,), self.postgres = self.postgres, ()
            for tenant in (ALICE, BOB):
                for name in self.names:
                    self.look_up(tenant, name)
                self.runner.run(store.erase_conversations(tenant, None))
                self.runner.run(store.erase(tenant, None))
            self.runner.run(store.aclose())
            super().teardown()
            assert set(row_counts(database).values()) == {0}

    run_state_machine_as_test(
        PostgresAgrees,
        settings=settings(
            max_examples=examples(200), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
