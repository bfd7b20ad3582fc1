"""What is counted, and what it comes to."""

from __future__ import annotations

from segue.http.heads import Line, ReplyHead, RequestHead
from segue.sidecar.stats import RECENT, ExchangeSummary, Stats, reply_bytes, request_bytes, rounded, saved_share


def test_heads_count_as_they_would_be_written() -> None:
    request = RequestHead(b"POST", b"/v1/x?y", (Line(b"A", b"1"), Line(b"a", b"")))
    assert request_bytes(request) == len(b"POST /v1/x?y HTTP/1.1\r\nA: 1\r\na: \r\n\r\n")
    reply = ReplyHead(200, b"OK", (Line(b"B", b"22"),))
    assert reply_bytes(reply) == len(b"HTTP/1.1 200 OK\r\nB: 22\r\n\r\n")


def test_the_saving_is_of_both_directions() -> None:
    stats = Stats(agent_bytes_in=800, agent_bytes_out=200, tunnel_bytes_up=40, tunnel_bytes_down=10)
    report = stats.report(parked=0, link="up", gateway="wss://g", rtt_s=None)
    assert saved_share(report) == 0.95
    assert saved_share(Stats().report(parked=0, link="up", gateway="wss://g", rtt_s=None)) == 0.0


def test_a_report_holds_the_counters_and_the_latest_exchanges() -> None:
    stats = Stats(exchanges=3, resumes=2)
    for number in range(RECENT + 5):
        stats.recent.append(ExchangeSummary(f"/{number}", 200, "completed", 1, 1, 1, 0.1))
    report = stats.report(parked=4, link="away", gateway="wss://g", rtt_s=0.1)
    assert (report.exchanges, report.resumes, report.parked, report.link) == (3, 2, 4, "away")
    assert [one.path for one in report.recent] == [f"/{number}" for number in range(5, RECENT + 5)]


def test_failures_are_counted_by_code_and_a_report_does_not_change_afterwards() -> None:
    stats = Stats()
    stats.note_failure("cut")
    stats.note_failure("cut")
    report = stats.report(parked=0, link="up", gateway="wss://g", rtt_s=None)
    stats.note_failure("segue_overloaded")
    assert report.failed == {"cut": 2}
    assert stats.failed == {"cut": 2, "segue_overloaded": 1}
    assert Stats().failed == {}


def test_others_see_sizes_of_what_was_compressed_in_steps() -> None:
    stats = Stats(agent_bytes_in=801, tunnel_bytes_up=257, tunnel_bytes_down=256)
    for size in (0, 1, 256, 300):
        stats.recent.append(ExchangeSummary("/x", 200, "completed", 777, size, 99, 0.1))
    report = rounded(stats.report(parked=0, link="up", gateway="wss://g", rtt_s=None))
    assert (report.agent_bytes_in, report.tunnel_bytes_up, report.tunnel_bytes_down) == (801, 512, 256)
    assert [one.document_bytes for one in report.recent] == [0, 256, 256, 512]
    assert {(one.body_bytes, one.reply_bytes) for one in report.recent} == {(777, 99)}
