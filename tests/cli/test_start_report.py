"""At its start a gateway says what it serves, to whom, and what of that is not safe."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue import __version__
from segue.cli.start_report import risks, start_lines
from segue.config import Config, load
from segue.http.routes import RouteTable, route_table

KEY = f'[[key]]\nname = "a"\ntenant = "t"\nsha256 = "{"0" * 64}"\n'
TLS = '[server]\ntls_cert = "c"\ntls_key = "k"\n'
PROVIDER = '[[upstream]]\nname = "u"\ndialect = "chat"\nmodels = ["m"]\nkey_env = "K"\nbase_url = '


def config_of(folder: Path, text: str) -> Config:
    (folder / "segue.toml").write_text(text)
    return load(folder / "segue.toml", {})


def routes() -> RouteTable:
    return route_table([])


def test_the_log_says_what_is_served_and_to_whom(tmp_path: Path) -> None:
    first, second = start_lines(config_of(tmp_path, KEY), ["gpt-5", "my model"], routes())
    assert first == f"action=start version={__version__} store=sqlite:///segue.db models=gpt-5,my_model"
    assert second.startswith("action=start keys=1 certificates=0 tenants=1 tls=no routes=/")
    assert "/anthropic" in second
    _, second = start_lines(config_of(tmp_path, TLS), [], routes())
    assert " keys=0 certificates=0 tenants=0 tls=yes " in second
    _, second = start_lines(config_of(tmp_path, TLS + 'tls_client_ca = "a"'), [], routes())
    assert " tls=with_client_certificates " in second


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    first, _ = start_lines(config_of(tmp_path, ""), [f"m{n}" for n in range(30)], routes())
    assert first.endswith(",m11,+18")


def test_no_line_has_the_password_of_a_store(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[server]\nstore = "postgresql://me:secret@db.example/segue?password=secret"\n')
    assert " store=postgresql://db.example/segue " in start_lines(config, [], routes())[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (KEY, ()),
        (f'{TLS}host = "0.0.0.0"\n{KEY}', ()),
        (f'[server]\nhost = "0.0.0.0"\n{KEY}', ("others on the network can read keys and conversations",)),
        (f'[[listener]]\nhost = "::"\nport = 0\n{KEY}', ("others on the network can read keys and conversations",)),
        ('[server]\naccess = "anyone"\n', ("every user and program of this machine is one tenant",)),
        (f'[server]\naccess = "anyone"\n{KEY}', ()),
        ('[server]\nhosts = ["*"]\n', ("a web page can reach it under a name of its own",)),
        (f'[server]\nhosts = ["*"]\n{KEY}', ()),
        (f'{PROVIDER}"http://api.example/v1"\n', ("upstream 'u': its key is sent without encryption",)),
        (f'{PROVIDER}"http://127.0.0.1:9/v1"\n', ()),
        (f'{PROVIDER}"https://api.example/v1"\n', ()),
        (f'{PROVIDER}"http://api.example/v1"\n'.replace('key_env = "K"\n', ""), ()),
        ('[server]\nstore = "sqlite:///a.db?synchronous=NORMAL"\n', ("a turn that was acknowledged may be lost in",)),
        (
            '[server]\nstore = "postgresql://a/b"\nlive = "redis://a"\n',
            ("a message thread goes on at one gateway alone",),
        ),
        ('[server]\nstore = "postgresql://a/b"\nlive = "redis://a"\nthreads = "durable"\n', ()),
    ],
)
def test_what_is_not_safe_is_told_and_nothing_else(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    told = list(risks(config_of(tmp_path, text)))
    assert len(told) == len(expected)
    assert all(one.startswith(begin) for one, begin in zip(told, expected, strict=True))
