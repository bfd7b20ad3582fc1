"""A job and its outbox."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from segue.engine.job import Job, TurnBegan, TurnFinished, Update, stopped
from segue.engine.prompt.chat_template import DEFAULT_CALL_FORMAT
from segue.engine.prompt.messages import Tools
from segue.engine.prompt.rendering import Prompt
from segue.engine.sampling_params import SamplingParams
from tests.engine.grammar.byte_grammars import parser_for
from tests.engine.turns import request


def new_job(wake: Callable[[], None] = lambda: None, sampling_params: SamplingParams | None = None) -> Job:
    parser = parser_for(DEFAULT_CALL_FORMAT, Tools())
    given = SamplingParams() if sampling_params is None else sampling_params
    return Job(request("x"), Prompt([1], 1), parser, wake=wake, sampling_params=given)


def test_an_owner_is_woken_once_for_all_that_waits() -> None:
    """Text that comes faster than it is taken costs one wake-up."""
    woken: list[None] = []
    job = new_job(lambda: woken.append(None))
    for update in (TurnBegan(3), "one", "two"):
        job.put(update)
    assert (job.take(), len(woken)) == ([TurnBegan(3), "one", "two"], 1)
    job.put("three")
    assert (job.take(), job.take(), len(woken)) == (["three"], [], 2)


def test_what_is_only_added_wakes_nobody_until_it_is_announced() -> None:
    woken: list[None] = []
    job = new_job(lambda: woken.append(None))
    job.announce()
    job.add("one")
    assert not woken, "there was nothing to announce"
    job.announce()
    job.announce()
    job.put("two")
    assert (job.take(), len(woken)) == (["one", "two"], 1)
    job.announce()
    assert len(woken) == 1


def test_no_update_is_lost_between_two_threads() -> None:
    """The engine's thread puts while the owner takes."""
    job, taken = new_job(), list[Update]()
    updates: list[Update] = [TurnBegan(3), *map(str, range(5000)), TurnFinished(5000, complete=True)]

    def put_all() -> None:
        for update in updates:
            job.put(update)

    thread = Thread(target=put_all)
    thread.start()
    while not taken or not isinstance(taken[-1], TurnFinished):
        taken += job.take()
    thread.join()
    assert taken == updates


def test_the_reader_of_a_job_obeys_its_sampling_params() -> None:
    job = new_job(sampling_params=SamplingParams(stops=("b",)))
    assert job.reader.feed(b"abc") == ["a"]
    assert job.reader.stopped


def test_a_job_of_a_stopped_engine_can_be_tried_again() -> None:
    assert stopped().code == "server_overloaded"
