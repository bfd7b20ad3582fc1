"""The shape rules, each on a file that breaks it and on one that just does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_shape import MAX_FUNCTION_LINES, MAX_MODULE_LINES, check, check_source, main

MODULE = Path("src/segue/gateway/app.py")


def messages(source: str, path: Path = MODULE) -> list[str]:
    return [finding.message for finding in check_source(path, source)]


def function(lines: int, docstring: str = "") -> str:
    return "def f():\n" + docstring + "    pass\n" * (lines - 1)


def test_a_function_may_be_as_long_as_the_limit_and_no_longer() -> None:
    assert messages(function(MAX_FUNCTION_LINES)) == []
    (message,) = messages("async " + function(MAX_FUNCTION_LINES + 1))
    assert f"f() has {MAX_FUNCTION_LINES + 1} lines" in message


def test_a_docstring_does_not_count_into_its_function() -> None:
    assert messages(function(MAX_FUNCTION_LINES, '    """One.\n\n    Two.\n    """\n')) == []


def test_a_module_may_be_as_long_as_the_limit_and_no_longer() -> None:
    assert messages("x = 1\n" * MAX_MODULE_LINES) == []
    (message,) = messages("x = 1\n" * (MAX_MODULE_LINES + 1))
    assert f"module has {MAX_MODULE_LINES + 1} lines" in message


@pytest.mark.parametrize("path", ["src/segue/utils.py", "src/segue/_common.py", "tests/helpers/x.py"])
def test_names_that_say_nothing_are_refused(path: str) -> None:
    (message,) = messages("", Path(path))
    assert "says nothing" in message


def test_a_name_that_only_contains_a_banned_word_is_fine() -> None:
    assert messages("", Path("src/segue/client/common_prefix.py")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nhome = os.environ['HOME']\n",
        "import os as system\nhome = system.getenv('HOME')\n",
        "from os import path, environ\n",
    ],
)
def test_only_config_reads_the_environment(source: str) -> None:
    assert messages(source) == ["the environment is read in src/segue/config only"]
    assert messages(source, Path("src/segue/config/loading.py")) == []
    assert messages(source, Path("tests/config/test_loading.py")) == []


def test_other_uses_of_os_are_fine() -> None:
    assert messages("import os\nsize = os.stat('x').st_size\n") == []


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S603 - the command is the user's own",
        "# noqa: S603, S607 the command is the user's own",
        "# type: ignore[arg-type]  # the stub lacks bytes",
        "# type: ignore[arg-type]  # the stub lacks bytes  # noqa: E501 - a long stub name",
        "# nothing to silence",
    ],
)
def test_a_suppression_with_code_and_reason_is_accepted(comment: str) -> None:
    assert messages(f"x = 1  {comment}\n") == []


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "# NOQA: S603",
        "# noqa: S603 - x",
        "# noqa the command is the user's own",
        "# type: ignore",
        "# type: ignore[arg-type]",
        "# type: ignore  # the stub lacks bytes",
        "# type: ignore[arg-type]  # noqa: E501 - a long stub name",
        "# ruff: noqa: S603 the command is the user's own",
        "# mypy: ignore-errors",
    ],
)
def test_a_suppression_without_code_or_reason_is_refused(comment: str) -> None:
    assert len(messages(f"x = 1  {comment}\n")) == 1


def test_a_suppression_inside_a_string_is_text() -> None:
    assert messages('x = "# noqa"\n') == []


def test_findings_name_path_and_line_and_set_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src").mkdir()
    assert main([str(tmp_path)]) == 0
    (tmp_path / "src" / "x.py").write_text("\nx = 1  # noqa\n", encoding="utf-8")
    (finding,) = check(tmp_path)
    assert str(finding).startswith("src/x.py:2: noqa needs a code")
    assert main([str(tmp_path)]) == 1
    assert str(finding) in capsys.readouterr().out
