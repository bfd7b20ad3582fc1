"""Bases in memory and on disk, and what can happen to a directory that others share."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from segue.sidecar.base_cache import BaseCache, BaseCacheLimits
from segue.tunnel.documents import Base
from tests.sidecar.bases import files_of, names, text, turns


def same(found: Base | None, base: Base) -> bool:
    return found is not None and (found.body, found.reply) == (base.body, base.reply)


def test_a_body_gets_the_newest_base_of_its_lineage() -> None:
    cache = BaseCache(None)
    one, two = turns(1, 6), turns(2, 6)
    for first, second in zip(one[:5], two[:5], strict=True):
        cache.add(first)
        cache.add(second)
    assert cache.choose(one[5].body).base is one[4]
    assert cache.choose(two[5].body).base is two[4]
    assert cache.choose(text(9, 5000).encode()).base is None
    assert cache.get(one[0].id) is one[0]
    assert cache.get(b"12345678") is None
    assert not cache.needs_flush
    cache.load()
    cache.flush()


def test_a_base_that_a_body_continues_is_chosen_without_a_search_or_a_wait() -> None:
    cache = BaseCache(None)
    bases = turns(1, 3)
    cache.add(bases[0])
    continued = cache.choose_continued(bases[1].body)
    assert continued is not None
    assert (continued.base, continued.match) == (bases[0], cache.choose(bases[1].body).match)
    assert cache.choose_continued(text(9, 5000).encode()) is None
    with cache._lock:  # noqa: SLF001 - as a thread holds it that takes fingerprints
        assert cache.choose_continued(bases[1].body) is None


def test_memory_is_bounded_in_bytes_and_the_least_recently_used_leave_first() -> None:
    bases = [turns(seed, 1)[0] for seed in range(5)]
    cache = BaseCache(None, BaseCacheLimits(memory_bytes=3 * bases[0].size + 100))
    for base in bases[:3]:
        cache.add(base)
    assert cache.get(bases[0].id) is bases[0]
    cache.add(bases[3])
    assert cache.get(bases[1].id) is None
    assert cache.choose(bases[1].body + b" ").base is None
    cache.add(bases[4])
    assert [cache.get(base.id) is base for base in bases] == [True, False, False, True, True]
    assert cache.size_bytes == sum(base.size for base in (bases[0], bases[3], bases[4]))
    cache.add(Base(b"x" * cache.size_bytes * 2))
    assert len(cache) == 3


def test_memory_is_bounded_in_number() -> None:
    bases = turns(1, 10)
    cache = BaseCache(None, BaseCacheLimits(memory_bases=4))
    for base in bases:
        cache.add(base)
    assert len(cache) == 4
    assert [cache.get(base.id) is base for base in bases[-4:]] == [True] * 4


def test_the_same_body_again_replaces_its_base() -> None:
    cache = BaseCache(None)
    old = turns(1, 1)[0]
    new = Base(old.body, b"another reply")
    cache.add(old)
    cache.add(new)
    assert cache.get(old.id) is new
    assert len(cache) == 1
    assert cache.size_bytes == new.size


def test_a_warm_start_has_the_newest_bases_of_each_session(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "cache"
    cache = BaseCache(directory)
    cache.load()
    one, two = turns(1, 6), turns(2, 6)
    for base in (*one[:5], *two[:5]):
        cache.add(base)
        cache.flush()
    assert not cache.needs_flush
    assert names(directory) == files_of(*one[3:5], *two[3:5])
    warm = BaseCache(directory)
    warm.load()
    assert len(warm) == 4
    assert same(warm.choose(one[5].body).base, one[4])
    assert same(warm.choose(two[5].body).base, two[4])
    warm.add(one[5])
    warm.flush()
    assert names(directory) == files_of(*one[4:], *two[3:5])


def test_only_the_owner_can_read_what_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    directory.chmod(0o755)
    cache = BaseCache(directory)
    cache.add(turns(1, 1)[0])
    cache.flush()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600]


def test_without_a_directory_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = BaseCache(None)
    cache.load()
    cache.add(turns(1, 1)[0])
    cache.flush()
    assert names(tmp_path) == set()


def test_disk_is_bounded_and_the_least_recently_used_leave_first(tmp_path: Path) -> None:
    cache = BaseCache(tmp_path, BaseCacheLimits(disk_files=3))
    bases = [turns(seed, 1)[0] for seed in range(5)]
    for number, base in enumerate(bases[:3]):
        cache.add(base)
        cache.flush()
        os.utime(tmp_path / f"{base.id.hex()}.base", (100 + number, 100 + number))
    cache.get(bases[0].id)
    cache.add(bases[3])
    cache.flush()
    assert names(tmp_path) == files_of(bases[0], bases[2], bases[3])
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    tight = BaseCache(tmp_path, BaseCacheLimits(disk_bytes=size - 1))
    tight.load()
    assert names(tmp_path) == files_of(bases[0], bases[3])


def test_loading_stops_at_the_memory_budget(tmp_path: Path) -> None:
    cache = BaseCache(tmp_path)
    bases = [turns(seed, 1)[0] for seed in range(4)]
    for number, base in enumerate(bases):
        cache.add(base)
        cache.flush()
        os.utime(tmp_path / f"{base.id.hex()}.base", (100 + number, 100 + number))
    small = BaseCache(tmp_path, BaseCacheLimits(memory_bytes=2 * bases[0].size + 100))
    small.load()
    assert [same(small.get(base.id), base) for base in bases] == [False, False, True, True]
    assert names(tmp_path) == files_of(*bases)


def test_a_discarded_base_leaves_memory_and_disk(tmp_path: Path) -> None:
    cache = BaseCache(tmp_path)
    kept, lost, unsaved = (turns(seed, 1)[0] for seed in range(3))
    cache.add(kept)
    cache.add(lost)
    cache.flush()
    cache.add(unsaved)
    for base in (lost, unsaved):
        cache.discard(base.id)
    cache.discard(b"unknown!")
    assert cache.needs_flush
    assert cache.choose(lost.body + b" ").base is None
    cache.flush()
    assert names(tmp_path) == files_of(kept)
    cache.discard(kept.id)
    cache.add(kept)
    cache.flush()
    assert names(tmp_path) == files_of(kept)


def test_two_sidecars_share_a_directory(tmp_path: Path) -> None:
    one, two = BaseCache(tmp_path), BaseCache(tmp_path)
    ours, theirs = turns(1, 4), turns(2, 4)
    for first, second in zip(ours, theirs, strict=True):
        one.add(first)
        two.add(second)
        one.flush()
        two.flush()
    assert names(tmp_path) == files_of(*ours[2:], *theirs[2:])
    for path in tmp_path.iterdir():
        path.unlink()
    one.discard(ours[3].id)
    one.get(ours[2].id)
    one.flush()
    two.add(ours[0])
    two.flush()
    assert names(tmp_path) == files_of(ours[0])


def test_a_directory_that_cannot_be_used_costs_only_the_warm_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    cache = BaseCache(blocked)
    base = turns(1, 1)[0]
    with caplog.at_level(logging.WARNING):
        cache.load()
        cache.add(base)
        cache.flush()
    assert cache.get(base.id) is base
    assert "action=base_cache_failed" in caplog.text
    blocked.unlink()
    cache.add(base)
    cache.flush()
    assert names(blocked) == files_of(base)


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    cache = BaseCache(tmp_path)
    cache.add(turns(1, 1)[0])
    cache.flush()
    assert names(tmp_path) == set()


def test_threads_may_use_it_at_once(tmp_path: Path) -> None:
    cache = BaseCache(tmp_path, BaseCacheLimits(memory_bases=40))
    failures: list[BaseException] = []

    def work(session: int) -> None:
        try:
            for base in turns(session, 12):
                cache.choose(base.body)
                cache.add(base)
                cache.flush()
        except BaseException as error:  # noqa: BLE001 - the test looks at whatever it was
            failures.append(error)

    threads = [threading.Thread(target=work, args=(session,)) for session in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(cache) == 40
    assert len(names(tmp_path)) <= 8
