"""How the scripted model mends the failing build: four errors, each of which hides the next."""

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

_BUILD = "python3 build.py"

SCRIPT = TaskScript(
    "mend-a-failing-build",
    (
        TaskStep(
            "I run the build to see its first error, and look at what the project holds.",
            (
                run(
                    _BUILD,
                    1,
                    Find(
                        r"error: (?P<file>[\w/]+\.py):(?P<line>\d+): this is no valid Python\n +(?P<source>.+)",
                        "a file that is no valid Python",
                    ),
                ),
                list_folder(".", Find(r"build\.py", "build.py"), Find(r"sitegen/", "the folder of the generator")),
            ),
        ),
        TaskStep(
            "Line $line of $file is no valid Python: `$source`. I read the lines around it.",
            (
                read_lines(
                    "$file",
                    Offset("line", -8),
                    Offset("line", 6),
                    Find(r"^(?P<broken> +if all\(.*\))$", "the broken line"),
                ),
            ),
        ),
        TaskStep("The colon at the end of the line is missing.", (edit("$file", "$broken\n", "$broken:\n"),)),
        TaskStep(
            "On to the next error, if there is one.",
            (
                run(
                    _BUILD,
                    1,
                    Find(
                        r"error: (?P<importer>[\w/]+\.py):\d+: [\w.]+ has no name '(?P<gone>\w+)'\n"
                        r" +(?P<import_line>from .+)",
                        "an import that fails",
                    ),
                    Find(r"has no name '(?P<stem>[a-z]+)", "the name that is gone"),
                ),
            ),
        ),
        TaskStep(
            "$importer imports `$gone`, which is not there any more. I look for what it is called now, and how the "
            "module uses it.",
            (
                search(
                    "def $stem",
                    "sitegen",
                    Find(r"sitegen/(?P<home>\w+)\.py:\d+:def (?P<known>\w+)\(title\)", "a function of a similar name"),
                ),
                read("$importer", Find(r"return (?P<use>\w+\(self\.title\))", "its use")),
            ),
        ),
        TaskStep(
            "It is `$known` in `sitegen.$home` now, and takes the same argument. I change the import and the one use.",
            (
                edit("$importer", "$import_line", "from sitegen.$home import $known"),
                edit("$importer", "$use", "$known(self.title)"),
            ),
        ),
        TaskStep(
            "And build again.",
            (
                run(
                    _BUILD,
                    1,
                    Find(
                        r"error: (?P<page>content/[\w-]+\.txt):\d+: no page '(?P<wrong>[\w-]+)' \(pages: .+\)\n"
                        r" +(?P<link>.*\]\([\w-]+\).*)",
                        "a link that leads nowhere",
                    ),
                    Find(r"\(pages: .*\b(?P<right>on-call)\b", "a page of a similar name"),
                ),
            ),
        ),
        TaskStep(
            "$page has a link to `$wrong`, and no page is called so. Its text says which one is meant: `$right`.",
            (edit("$page", "]($wrong)", "]($right)"),),
        ),
        TaskStep(
            "Next.",
            (
                run(
                    _BUILD,
                    1,
                    Find(
                        r"error: (?P<template>templates/\w+\.html):\d+: no value for '(?P<unknown>\w+)' "
                        r"\(values: .*\b(?P<value>author)\b.*\)\n +(?P<place>.+)",
                        "a place of a template without a value",
                    ),
                ),
            ),
        ),
        TaskStep(
            "The template $template asks for `$unknown`; the pages have `$value`. The footer of the same template "
            "spells it right.",
            (edit("$template", "{{ $unknown }}", "{{ $value }}"),),
        ),
        TaskStep("Once more.", (run(_BUILD, 0, Find(r"built (?P<count>\d+) pages", "a build that succeeded")),)),
        TaskStep(
            "The build succeeds: $count pages. Four things were wrong, one behind the other: a missing colon in $file, "
            "an import of `$gone` in $importer (it is `$known` in `sitegen.$home`), a link to `$wrong` in $page (now "
            "`$right`), and `$unknown` for `$value` in $template. `build.py` is as it was."
        ),
    ),
)
