"""What a metered run says of a real agent. The agents themselves are run by hand."""

from __future__ import annotations

import pytest

from segue.bench.reports.report import TurnFigures, arm, figure, make_report
from tools.measure_real_agents import AGENTS, figures_of


@pytest.mark.parametrize(
    ("method", "path", "api"),
    [
        ("POST", "/anthropic/v1/messages", "Messages"),
        ("WS", "/openai/v1/responses", "Responses, WebSocket"),
        ("POST", "/openai/v1/chat/completions", "Chat Completions"),
        ("POST", "/gemini/v1beta/models/m:streamGenerateContent", "Gemini"),
    ],
)
def test_a_run_is_told_in_one_line(method: str, path: str, api: str) -> None:
    values = {
        "task done": 1,
        "requests to the model at the provider": 13,
        "requests that came to the provider again": 0,
        "requests without a whole answer of success": 1,
        "links resumed": 2,
        "set-up of the tunnel, bytes up": 5,
        "set-up of the tunnel, bytes down": 6,
    }
    arms = [
        arm("straight", [TurnFigures(bytes_up_wire=100, bytes_down_wire=200)]),
        arm("tunnel", [TurnFigures(bytes_up_wire=10, bytes_down_wire=20, at_s=3.0, time_s=1.5)]),
    ]
    settings = {"exchanges": [{"method": method, "path": path}]}
    one = figures_of("pi", "1.2.3", make_report(arms, settings, [figure(name, [v], "") for name, v in values.items()]))
    assert (one.api, one.done, one.requests, one.repeated, one.failed, one.resumes) == (api, True, 13, 0, 1, 2)
    assert (one.sent_bytes, one.link_sent_bytes, one.received_bytes, one.link_received_bytes) == (100, 15, 200, 26)
    assert one.time_s == 4.5


def test_every_agent_is_told_what_to_do_and_by_which_program() -> None:
    for agent in AGENTS.values():
        assert {"{program}", "{prompt}"} <= set(agent.command)
