"""The options of `segue serve` as a value: a worker reads the same configuration from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from segue.cli.serve_options import ServeOptions, WorkerSpec
from segue.config import ConfigError


def test_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text('[server]\nport = 1\nhost = "127.0.0.2"\n')
    server = ServeOptions(config=str(file), port=2, store="memory:").read().server
    assert (server.host, server.port, server.store, server.workers) == ("127.0.0.2", 2, "memory:", 1)


def test_several_workers_must_share_what_they_keep(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text("")
    with pytest.raises(ConfigError, match="must share what they keep"):
        ServeOptions(config=str(file), workers="auto").read()


def test_a_worker_has_a_port_of_its_own_by_which_it_is_found(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text(
        "[[listener]]\nport = 4800\nper_worker = true\n[[listener]]\nport = 4801\n"
        '[tunnel]\naddress = "https://one.example:4800/a"\n'
    )
    config = ServeOptions(config=str(file), slot=2).read()
    assert [one.port for one in config.listener] == [4802, 4801]
    assert config.tunnel.address == "https://one.example:4802/a"
    assert ServeOptions(config=str(file)).read().listener[0].port == 4800


def test_an_address_of_another_port_is_that_of_all(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text('[[listener]]\nport = 0\nper_worker = true\n[tunnel]\naddress = "https://one.example/a"\n')
    config = ServeOptions(config=str(file), slot=2).read()
    assert (config.listener[0].port, config.tunnel.address) == (0, "https://one.example/a")


def test_a_port_beyond_the_last_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text("[[listener]]\nport = 65535\nper_worker = true\n")
    assert ServeOptions(config=str(file), slot=0).read().listener[0].port == 65535
    with pytest.raises(ConfigError, match="no port for worker 2"):
        ServeOptions(config=str(file), slot=1).read()


def test_a_worker_is_told_the_same() -> None:
    spec = WorkerSpec(3, ServeOptions(config="a.toml", workers="auto"), [[4, 5], [6]], 9)
    assert msgspec.json.decode(msgspec.json.encode(spec), type=WorkerSpec) == spec
