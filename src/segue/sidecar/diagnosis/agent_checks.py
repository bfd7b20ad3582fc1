"""Whether an agent's own settings let it obey the sidecar's address: what wins over it, and what asks elsewhere.

Pure: the caller reads the files. What is known of an agent's settings is in the documentation of each:
https://code.claude.com/docs/en/settings, https://developers.openai.com/codex/config-reference,
https://opencode.ai/docs/config/, https://geminicli.com/docs/reference/configuration.md. Not here: pointing an agent at
the sidecar (`agent_environment`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import msgspec

from segue.sidecar.diagnosis.check_results import DiagnosticResult, failed, passed, skipped

_CLAUDE_CLOUDS = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")
_OPENCODE_PROVIDERS = ("anthropic", "openai", "google")
_OFF = frozenset({"", "0", "false", "no", "off"})
_NAME = "agent"
#: Where Codex asks by itself when it is logged in with ChatGPT (https://github.com/openai/codex/issues/34608).
_CHATGPT = "https://chatgpt.com"

#: The path below which an agent asks; agents that are not here may ask below any.
MOUNTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"claude": ("/anthropic",), "codex": ("/openai",), "gemini": ("/gemini",)}
)


class SettingsFile(msgspec.Struct, frozen=True):
    """A settings file of an agent that is there. `settings`: None if it cannot be read."""

    path: str
    settings: Mapping[str, Any] | None
    managed: bool = False
    """It is the company's, and wins over what a command and its environment say."""


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A command that runs an agent, and what it would read. `files`: those that win come first."""

    command: Sequence[str]
    variables: Mapping[str, str]
    files: Sequence[SettingsFile] = ()
    targets: Sequence[str] = ()
    """Where the gateway's routes lead, if it has told."""

    @property
    def program(self) -> str:
        """The name of the agent."""
        return PurePath(self.command[0]).name


def is_known(facts: AgentFacts) -> bool:
    """Tell whether anything is known of this agent's settings."""
    return facts.program in _JUDGES


def judge_agent(facts: AgentFacts) -> tuple[DiagnosticResult, ...]:
    """Return what keeps an agent from the sidecar; if nothing does, one result that says so."""
    if not is_known(facts):
        finding = f"nothing is known of the settings of {facts.program}; it must read its address from the environment"
        return (skipped(_NAME, finding, "If it does not, point it at `segue sidecar` in its own settings."),)
    unread = [
        skipped(_NAME, f"{file.path} cannot be read, so it is not known what it sets")
        for file in facts.files
        if file.settings is None
    ]
    wrong = tuple(_JUDGES[facts.program](facts))
    if wrong:
        return (*wrong, *unread)
    return (passed(_NAME, f"nothing in the settings of {facts.program} wins over the sidecar's address"), *unread)


def _claude(facts: AgentFacts) -> Iterator[DiagnosticResult]:
    variables = [(file.path, _table(file.settings, "env")) for file in facts.files]
    for path, found in variables:
        if "ANTHROPIC_BASE_URL" in found:
            finding = f"{path} sets ANTHROPIC_BASE_URL, and claude obeys it: nothing goes through the sidecar"
            yield failed(_NAME, finding, "Remove the entry from that file.")
    for name in _CLAUDE_CLOUDS:
        for path, found in [*variables, ("the environment", facts.variables)]:
            if str(found.get(name, "")).lower() not in _OFF:
                finding = f"{name} is set by {path}: claude asks that cloud, and nothing goes through the sidecar"
                yield failed(_NAME, finding, "Unset it for this session; the sidecar leads to Anthropic's own API.")


def _codex(facts: AgentFacts) -> Iterator[DiagnosticResult]:
    overrides = dict(_codex_overrides(facts.command[1:]))
    if "openai_base_url" in overrides:
        yield failed(_NAME, "the command sets openai_base_url itself", "Leave it out: segue run puts it in.")
    if "--oss" in facts.command:
        yield failed(_NAME, "--oss asks a model on this machine", "Leave it out; there is nothing to save on the way.")
    provider, where = overrides.get("model_provider"), "the command"
    for file in facts.files:
        if provider is None:
            provider, where = _codex_provider(file), file.path
    if provider is not None and provider != "openai":
        finding = f"{where} chooses the provider {provider}, which has an address of its own"
        yield failed(
            _NAME, finding, "Add `-c model_provider=openai` behind codex, or point that provider at `segue sidecar`."
        )
    if any(_is_chatgpt_login(file) for file in facts.files) and _CHATGPT not in facts.targets:
        finding = "codex is logged in with ChatGPT, whose tokens api.openai.com refuses (401, missing scopes)"
        cure = "Log in with an API key, or give the gateway a [[route]] to chatgpt.com (docs/how-to/agents.md)."
        yield failed(_NAME, finding, cure)


def _codex_overrides(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what `-c NAME=VALUE` sets, in each way of writing it."""
    for argument, value in zip(arguments, [*arguments[1:], ""], strict=False):
        setting = value if argument in {"-c", "--config"} else argument.partition("--config=")[2]
        name, separator, text = setting.partition("=")
        if separator:
            yield name.strip(), text.strip().strip("\"'")


def _codex_provider(file: SettingsFile) -> str | None:
    """Return the provider that a file chooses, itself or in the profile that it chooses (before Codex 0.134)."""
    settings = file.settings or {}
    chosen = _table(settings, "profiles").get(str(settings.get("profile")), {})
    for table in (chosen, settings):
        if isinstance(table, Mapping) and isinstance(table.get("model_provider"), str):
            return str(table["model_provider"])
    return None


def _is_chatgpt_login(file: SettingsFile) -> bool:
    return PurePath(file.path).name == "auth.json" and (file.settings or {}).get("auth_mode") == "chatgpt"


def _opencode(facts: AgentFacts) -> Iterator[DiagnosticResult]:
    for file in facts.files:
        providers = _table(file.settings, "provider")
        for name in _OPENCODE_PROVIDERS if file.managed else ():
            if "baseURL" in _table(_table(providers, name), "options"):
                finding = f"{file.path} gives {name} an address, and wins over the sidecar's"
                yield failed(_NAME, finding, "Ask who manages this machine to remove the entry.")
    models = [file.settings.get("model") for file in facts.files if file.settings is not None]
    model = next((one for one in models if isinstance(one, str)), "")
    provider = model.partition("/")[0]
    if model and provider not in _OPENCODE_PROVIDERS:
        finding = f"its model is {model}, and the provider {provider} is not pointed at the sidecar"
        cure = "Choose a model of anthropic, openai or google, or give that provider the address of `segue sidecar`."
        yield failed(_NAME, finding, cure)


def _gemini(facts: AgentFacts) -> Iterator[DiagnosticResult]:
    chosen = (_table(_table(file.settings, "security"), "auth").get("selectedType") for file in facts.files)
    kind = next((one for one in chosen if isinstance(one, str)), "")
    cure = "Choose the API key in gemini once, with /auth."
    if not kind:
        finding = "no way to log in is chosen, and gemini does not start with an address of its own then"
        yield failed(_NAME, finding, cure)
    elif kind != "gemini-api-key":
        yield failed(_NAME, f"gemini logs in by {kind}, and asks another address than the sidecar's then", cure)


#: The agents whose settings are known.
_JUDGES: Mapping[str, Callable[[AgentFacts], Iterator[DiagnosticResult]]] = MappingProxyType(
    {"claude": _claude, "codex": _codex, "opencode": _opencode, "gemini": _gemini}
)


def _table(settings: object, name: str) -> Mapping[str, Any]:
    """Return a table of settings; empty if it is not there, or is none."""
    found = settings.get(name) if isinstance(settings, Mapping) else None
    return found if isinstance(found, Mapping) else {}
