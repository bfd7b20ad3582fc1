"""Bases as files: what is damaged, foreign or left behind is never taken for a base."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.sidecar.base_cache import BaseCache
from segue.sidecar.base_disk_cache import BaseDiskCache, BaseFile
from segue.tunnel.documents import Base
from tests.sidecar.bases import files_of, names, turns
from tests.strategies import examples


def test_a_base_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = BaseDiskCache(tmp_path / "a" / "b")
    files.open()
    for base in (Base(b""), Base(b"", b"reply"), Base(b"body"), turns(1, 1)[0]):
        files.write(base)
        found = files.read(base.id, 10_000)
        assert found is not None
        assert (found.body, found.reply) == (base.body, base.reply)


def test_files_are_listed_by_their_last_use(tmp_path: Path) -> None:
    files = BaseDiskCache(tmp_path)
    bases = [turns(seed, 1)[0] for seed in range(3)]
    sizes = {}
    for number, base in enumerate(bases):
        files.write(base)
        path = tmp_path / f"{base.id.hex()}.base"
        os.utime(path, (100 - number, 100 - number))
        sizes[base.id] = path.stat().st_size
    (tmp_path / "not-hex.base").touch()
    (tmp_path / "ABCDEF.base").touch()
    files.touch(bases[2].id)
    oldest, newer, newest = files.list()
    assert (oldest, newer) == (
        BaseFile(bases[1].id, sizes[bases[1].id], 99.0),
        BaseFile(bases[0].id, sizes[bases[0].id], 100.0),
    )
    assert (newest.base_id, newest.used_at > 1000) == (bases[2].id, True)


def test_a_file_that_is_gone_is_no_error(tmp_path: Path) -> None:
    files = BaseDiskCache(tmp_path)
    files.touch(b"12345678")
    files.remove(b"12345678")
    assert files.read(b"12345678", 100) is None
    assert files.list() == []


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BaseDiskCache(tmp_path)

    def fail(self: Path, target: Path) -> Path:
        raise OSError(f"cannot rename {self} to {target}")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="cannot rename"):
        files.write(turns(1, 1)[0])
    assert names(tmp_path) == set()


def test_the_directory_shrinks_to_its_bounds(tmp_path: Path) -> None:
    files = BaseDiskCache(tmp_path)
    bases = [turns(seed, 1)[0] for seed in range(4)]
    for number, base in enumerate(bases):
        files.write(base)
        os.utime(tmp_path / f"{base.id.hex()}.base", (100 + number, 100 + number))
    files.shrink(max_bytes=10**9, max_files=3)
    assert names(tmp_path) == files_of(*bases[1:])
    files.shrink(max_bytes=sum(file.size for file in files.list()) - 1, max_files=3)
    assert names(tmp_path) == files_of(*bases[2:])
    files.shrink(max_bytes=0, max_files=3)
    assert names(tmp_path) == set()


def test_what_another_sidecar_writes_is_counted_in_time(tmp_path: Path) -> None:
    """The directory is not listed for each base: that would take longer than all else."""
    ours, theirs = BaseDiskCache(tmp_path), BaseDiskCache(tmp_path)
    bases = [Base(b"%d" % number) for number in range(60)]
    ours.shrink(max_bytes=10**9, max_files=10)
    for number, base in enumerate(bases[:10]):
        theirs.write(base)
        os.utime(tmp_path / f"{base.id.hex()}.base", (100 + number, 100 + number))
    counts = []
    for base in bases[10:]:
        ours.write(base)
        ours.shrink(max_bytes=10**9, max_files=10)
        counts.append(len(names(tmp_path)))
    assert max(counts) == 20
    assert set(counts[10:]) == {10}
    assert names(tmp_path) == files_of(*bases[50:])


@settings(max_examples=examples(200))
@given(st.data())
def test_a_damaged_file_is_ignored_and_removed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("cache")
    files = BaseDiskCache(directory)
    base = turns(1, 1)[0]
    files.write(base)
    (path,) = directory.iterdir()
    good = path.read_bytes()
    match data.draw(st.sampled_from(["cut", "flip", "longer", "other"])):
        case "cut":
            path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
        case "flip":
            at = data.draw(st.integers(0, len(good) - 1))
            path.write_bytes(good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :])
        case "longer":
            path.write_bytes(good + data.draw(st.binary(min_size=1, max_size=9)))
        case _:
            path.write_bytes(data.draw(st.binary(max_size=100)))
    cache = BaseCache(directory)
    cache.load()
    found = cache.get(base.id)
    assert found is None or (found.body, found.reply) == (base.body, base.reply)
    if found is None:
        assert names(directory) == set()


def test_a_good_file_under_another_name_is_removed(tmp_path: Path) -> None:
    files = BaseDiskCache(tmp_path)
    base = turns(1, 1)[0]
    files.write(base)
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / "0011223344556677.base")
    cache = BaseCache(tmp_path)
    cache.load()
    assert len(cache) == 0
    assert names(tmp_path) == set()


def test_a_file_that_expands_beyond_the_budget_is_not_expanded(tmp_path: Path) -> None:
    files = BaseDiskCache(tmp_path)
    base = Base(b"a" * 10_000_000)
    files.write(base)
    assert next(tmp_path.iterdir()).stat().st_size < 10_000
    assert files.read(base.id, 1_000_000) is None


def test_links_and_directories_are_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    elsewhere = tmp_path / "elsewhere"
    base, other = turns(1, 1)[0], turns(2, 1)[0]
    elsewhere.mkdir()
    BaseDiskCache(elsewhere).write(base)
    directory.mkdir()
    (directory / f"{base.id.hex()}.base").symlink_to(elsewhere / f"{base.id.hex()}.base")
    (directory / f"{other.id.hex()}.base").mkdir()
    (directory / "notes.txt").write_text("not ours")
    cache = BaseCache(directory)
    cache.load()
    assert len(cache) == 0
    assert names(directory) == {f"{other.id.hex()}.base", "notes.txt"}
    assert names(elsewhere) == files_of(base)


def test_what_a_crash_left_behind_is_removed_later(tmp_path: Path) -> None:
    old, new = tmp_path / ".old.tmp", tmp_path / ".new.tmp"
    old.write_bytes(b"torn")
    new.write_bytes(b"of another sidecar, being written")
    os.utime(old, (0, 0))
    BaseCache(tmp_path).load()
    assert names(tmp_path) == {".new.tmp"}
