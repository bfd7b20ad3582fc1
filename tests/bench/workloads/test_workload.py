"""A workload is read from its name, and has another one of the same agent before it."""

from __future__ import annotations

import pytest

from segue.agent.tasks import list_tasks
from segue.bench.workloads.workload import (
    ConversationWorkload,
    TaskWorkload,
    UnknownWorkloadError,
    Workload,
    list_workloads,
    read_workload,
)


@pytest.mark.parametrize(
    ("name", "workload"),
    [
        ("article", ConversationWorkload("article")),
        ("conversation:50", ConversationWorkload("conversation:50")),
        ("fix-a-failing-test", TaskWorkload("fix-a-failing-test")),
    ],
)
def test_reads_a_name(name: str, workload: Workload) -> None:
    assert read_workload(name) == workload


@pytest.mark.parametrize("name", ["", "article:10", "conversation:0", "../article"])
def test_refuses_another_name_and_says_which_there_are(name: str) -> None:
    with pytest.raises(UnknownWorkloadError) as refused:
        read_workload(name)
    assert all(known in str(refused.value) for known in list_workloads())


def test_the_earlier_work_is_another_task_of_the_same_agent() -> None:
    assert read_workload("article").earlier == ConversationWorkload("article", task=1)
    for name in list_tasks():
        assert read_workload(name).earlier.name in set(list_tasks()) - {name}
