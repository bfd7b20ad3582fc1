"""How the scripted model fixes the failing test: its first mend breaks another test, and the second mends both."""

from __future__ import annotations

from segue.upstreams.scripted_tasks.steps import (
    Find,
    Offset,
    TaskScript,
    TaskStep,
    edit,
    list_folder,
    read,
    read_lines,
    run,
    search,
)

_FIRST_MEND = """\
        parts = [self.cents * weight // total for weight in weights]
        for index in range(self.cents - sum(parts)):
            parts[index] += 1
        return [Money(cents, self.currency) for cents in parts]
"""

_MEND = """\
        shares = [abs(self.cents) * weight for weight in weights]
        parts = [share // total for share in shares]
        by_rest = sorted(range(len(shares)), key=lambda index: -(shares[index] % total))
        for index in by_rest[: abs(self.cents) - sum(parts)]:
            parts[index] += 1
        sign = -1 if self.cents < 0 else 1
        return [Money(sign * cents, self.currency) for cents in parts]
"""

SCRIPT = TaskScript(
    "fix-a-failing-test",
    (
        TaskStep(
            "I will look at the project first: what is in it, and what its README says about the tests.",
            (
                list_folder(".", Find(r"run_tests\.py", "run_tests.py")),
                read("README.md", Find(r"`(?P<tests>python3 run_tests\.py)`", "the command that runs the tests")),
            ),
        ),
        TaskStep(
            "Now I run the tests to see which one fails.",
            (
                run(
                    "$tests",
                    1,
                    Find(
                        r"FAIL: [\w.]+\.(?P<test>\w+)\n  (?P<file>[\w/]+\.py):(?P<line>\d+): (?P<assertion>.+)\n"
                        r"  (?P<error>.+)",
                        "a test that fails",
                    ),
                    Find(r"assertEqual\((?P<summed>\w+)\(", "what the assertion compares"),
                ),
            ),
        ),
        TaskStep(
            "`$test` fails at line $line of $file: $error. A cent is lost somewhere. I read the test, and look up how "
            "`$summed` adds.",
            (
                read_lines(
                    "$file",
                    Offset("line", -14),
                    Offset("line", 2),
                    Find(r"plan = self\.bill\.(?P<planned>\w+)\(\[1, 1, 1\]\)", "the call that makes the plan"),
                ),
                search("def $summed", "billing", Find(r"(?P<sum_file>billing/\w+\.py):\d+:def ", "its definition")),
            ),
        ),
        TaskStep(
            "The sum is plain addition in $sum_file, so the parts themselves must be wrong. They come from `$planned`; "
            "where is it?",
            (search("def $planned", "billing", Find(r"(?P<plan_file>billing/\w+\.py):\d+: +def ", "its definition")),),
        ),
        TaskStep(
            "I read $plan_file.",
            (read("$plan_file", Find(r"amounts = self\.total\.(?P<split>\w+)\(weights\)", "how the total is split")),),
        ),
        TaskStep(
            "`$planned` hands the total to `$split`. I look for its definition, and for everyone else who uses it, "
            "since they will see what I change.",
            (
                search(
                    "$split",
                    ".",
                    Find(r"(?P<money>billing/\w+\.py):(?P<at>\d+): +def ", "the definition of the split"),
                    Find(r"(?P<test_of_split>tests/\w+\.py):\d+:", "a test that uses it"),
                ),
            ),
        ),
        TaskStep(
            "It is in $money, line $at; $test_of_split has tests of it that pass today and must still pass.",
            (
                read(
                    "$money",
                    Find(
                        r"(?P<old> +return \[self\.times\(Fraction\(weight, total\)\) for weight in weights\]\n)",
                        "the line that splits an amount",
                    ),
                    Find(r"total = sum\(weights\)", "the sum of the weights"),
                ),
            ),
        ),
        TaskStep(
            "Here is the cause: each part is rounded by itself, so the parts need not add up. 100.00 in three parts is "
            "33.33 each, and a cent is gone. I round down and give the cents that are left to the first parts.",
            (edit("$money", "$old", _FIRST_MEND),),
        ),
        TaskStep(
            "I run all tests again.",
            (
                run(
                    "$tests",
                    1,
                    Find(
                        r"FAIL: [\w.]+\.(?P<test2>\w+)\n  (?P<file2>[\w/]+\.py):(?P<line2>\d+): .+\n  (?P<error2>.+)",
                        "a test that fails",
                    ),
                ),
            ),
        ),
        TaskStep(
            "That test passes, but now `$test2` fails at $file2:$line2. I read it, and my change beside it.",
            (
                read_lines(
                    "$file2",
                    Offset("line2", -12),
                    Offset("line2", 1),
                    Find(r"self\.note\.payment_plan", "the plan of a credit note"),
                ),
                read_lines(
                    "$money",
                    Offset("at", 0),
                    Offset("at", 10),
                    Find(r"(?P<mended> +parts = \[self\.cents(?:.*\n)+?.*for cents in parts\]\n)", "my change"),
                ),
            ),
        ),
        TaskStep(
            "A credit note is negative, and `//` rounds down, away from zero there: its parts are no mirror of the "
            "invoice's. I split the absolute amount and put the sign back. And the cents that are left go to the parts "
            "with the largest rest, not to the first ones: a part of weight 0 must stay 0.",
            (edit("$money", "$mended", _MEND),),
        ),
        TaskStep(
            "And all tests once more.", (run("$tests", 0, Find(r"(?P<count>\d+) tests, 0 failed", "no failure")),)
        ),
        TaskStep(
            "All $count tests pass. The cause was in `$split` in $money: it rounded each part by itself, so the parts "
            "of a payment plan did not add up to the total. It now splits whole cents: every part is rounded down, "
            "and the cents that are left go to the parts with the largest rest. It does so with the absolute amount, "
            "so a credit note mirrors its invoice. I changed no test."
        ),
    ),
)
