"""Each setting is told with where it came from, and no secret is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segue.config import SourcedSetting, load, sourced_settings


def told(path: Path | None, environ: Mapping[str, str]) -> dict[str, tuple[object, str, str]]:
    settings = sourced_settings(load(path, environ), path, environ)
    return {one.name: (one.value, one.source, one.where) for one in settings}


def test_every_source_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[sidecar]\nport = 1\nhost = "::1"\nkey = "sk-secret"\n[[route]]\nmount = "/a"\ntarget = "self"\n')
    environ = {"SEGUE_SIDECAR_PORT": "2", "SEGUE_ROUTE_0_TARGET": "https://b.example", "SEGUE_LISTENER_0_PORT": "0"}
    settings = told(file, environ)
    assert settings["sidecar.port"] == (2, "environment", "SEGUE_SIDECAR_PORT")
    assert settings["sidecar.host"] == ("::1", "file", str(file))
    assert settings["sidecar.key"] == ("(set)", "file", str(file))
    assert settings["sidecar.direct"] == (False, "default", "")
    assert settings["server.port"] == (4747, "default", "")
    assert {name: one for name, one in settings.items() if name.startswith(("route", "listener"))} == {
        "route.0.mount": ("/a", "file", str(file)),
        "route.0.target": ("https://b.example", "environment", "SEGUE_ROUTE_0_TARGET"),
        "listener.0.port": (0, "environment", "SEGUE_LISTENER_0_PORT"),
    }


def test_a_key_whose_place_another_took_is_not_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[sidecar]\nkey_file = "f"\n')
    settings = told(file, {"SEGUE_SIDECAR_KEY": "sk-secret"})
    assert settings["sidecar.key"] == ("(set)", "environment", "SEGUE_SIDECAR_KEY")
    assert settings["sidecar.key_file"] == (None, "default", "")


def test_a_proxy_of_the_environment_is_told_by_its_variable() -> None:
    environ = {"ALL_PROXY": "http://alice:hunter2@p:1"}
    assert told(None, environ)["sidecar.proxy"] == ("(set)", "environment", "ALL_PROXY")
    without = {**environ, "SEGUE_SIDECAR_PROXY": ""}
    assert told(None, without)["sidecar.proxy"] == ("", "environment", "SEGUE_SIDECAR_PROXY")
    assert told(None, {})["sidecar.proxy"] == (None, "default", "")


def test_the_environment_of_this_process_is_read_by_itself() -> None:
    assert SourcedSetting("agent.key", None, "default") in sourced_settings(load(None, {}), None)
