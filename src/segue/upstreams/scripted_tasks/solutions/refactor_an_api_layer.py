"""How the scripted model refactors the API layer: it rewrites seven modules by rules, and finds one that it missed."""

from __future__ import annotations

from segue.upstreams.scripted_tasks.steps import (
    Find,
    RewrittenText,
    TaskScript,
    TaskStep,
    read,
    run,
    search,
    write,
)

_RESPONSES = '''\
"""What a handler answers with: one type, and one function for each kind of answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Response:
    """A status, and a body that is written as JSON."""

    status: int
    body: object


def ok(body):
    """It worked."""
    return Response(200, body)


def created(body):
    """Something new is there."""
    return Response(201, body)


def no_content():
    """It worked, and there is nothing to say."""
    return Response(204, None)


def error(status, code, message):
    """It did not work. The code is for programs, the message for people."""
    return Response(status, {"error": {"code": code, "message": message}})
'''


def _error_rule(status: int, code: str) -> tuple[str, str]:
    shapes = rf'\{{"status": {status}, "body": \{{"(?:error|message)": (.+?)(?:, "ok": False)?\}}\}}$'
    return shapes, rf'error({status}, "{code}", \1)'


def _import_rule(before: str, names: str) -> tuple[str, str]:
    return rf"^({before})", rf"from library.responses import {names}\n\1"


_NOT_FOUND = _error_rule(404, "not_found")
_INVALID = _error_rule(400, "invalid")
_CONFLICT = _error_rule(409, "conflict")
_OK = (r'\{"status": 200, "body": (.+)\}$', r"ok(\1)")
_CREATED = (r'\{"status": 201, "body": (.+)\}$', r"created(\1)")
_NO_CONTENT = (r'\{"status": 204, "body": None\}$', "no_content()")
_SHELF = r"from library\.shelf import"

_BOOKS = (
    *(_NOT_FOUND, _INVALID, _CONFLICT, _OK, _CREATED, _NO_CONTENT),
    _import_rule(_SHELF, "created, error, no_content, ok"),
)
_MEMBERS = (_NOT_FOUND, _INVALID, _CONFLICT, _OK, _CREATED, _import_rule(_SHELF, "created, error, ok"))
_LOANS = _MEMBERS
_REPORTS = (_NOT_FOUND, _OK, _import_rule(_SHELF, "error, ok"))
_ROUTING = (
    _NOT_FOUND,
    _error_rule(405, "not_allowed"),
    (r"^(from library\.handlers import .*)$", r"\1\nfrom library.responses import error"),
)
_APP = (
    _INVALID,
    (r'answer\["(status|body)"\]', r"answer.\1"),
    _import_rule(r"from library\.routing import", "error"),
)
_MIDDLEWARE = (
    (r"except Exception as error:$", "except Exception as failure:"),
    (r"repr\(error\)", "repr(failure)"),
    (r'dict\(status=500, body=dict\(code=500, reason=(".+")\)\)$', r'error(500, "internal", \1)'),
    (r'dict\(status=403, body=dict\(code=403, reason=(".+")\)\)$', r'error(403, "forbidden", \1)'),
    (r'\A(""".+""")$', r"\1\n\nfrom library.responses import error"),
)

_BY_HAND = Find(r'\{"status": \d+, "body": ', "answers that are built by hand")

SCRIPT = TaskScript(
    "refactor-an-api-layer",
    (
        TaskStep(
            "I read the README to see which modules make up the API layer, and how to run the tests.",
            (
                read(
                    "README.md",
                    Find(r"`(?P<app>library/app\.py)`", "the module of the application"),
                    Find(r"`(?P<routing>library/routing\.py)`", "the module of the routes"),
                    Find(r"`(?P<middleware>library/middleware\.py)`", "the module of the middleware"),
                    Find(r"`(?P<handlers>library/handlers)/`", "the folder of the handlers"),
                    Find(r"`(?P<tests>python3 run_tests\.py)`", "the command that runs the tests"),
                ),
            ),
        ),
        TaskStep(
            "Where are answers built by hand? I search for them, and read $app, where they end up.",
            (
                search(
                    '{"status":',
                    "library",
                    *(
                        Find(rf"(?P<{name}>library/handlers/{name}\.py):\d+:", f"the handlers of {name}")
                        for name in ("books", "members", "loans", "reports")
                    ),
                    Find(r"library/routing\.py:\d+:", "the routes"),
                ),
                read("$app", Find(r'answer\["status"\]', "where an answer is written"), keep="app_text"),
            ),
        ),
        TaskStep(
            "Five modules beside $app build them. I read all five before I change anything.",
            (
                read("$books", _BY_HAND, keep="books_text"),
                read("$members", _BY_HAND, keep="members_text"),
                read("$loans", _BY_HAND, keep="loans_text"),
                read("$reports", _BY_HAND, keep="reports_text"),
                read("$routing", _BY_HAND, keep="routing_text"),
            ),
        ),
        TaskStep(
            "There are three shapes of errors: `error` as text, `message` with `ok`, and none of them has a code. I "
            "write the new module, and let the application take a `Response`.",
            (write("library/responses.py", _RESPONSES), write("$app", RewrittenText("app_text", _APP))),
        ),
        TaskStep(
            "Now the handlers and the router. Statuses and messages stay; each error gets the code of its status.",
            (
                write("$books", RewrittenText("books_text", _BOOKS)),
                write("$members", RewrittenText("members_text", _MEMBERS)),
                write("$loans", RewrittenText("loans_text", _LOANS)),
                write("$reports", RewrittenText("reports_text", _REPORTS)),
                write("$routing", RewrittenText("routing_text", _ROUTING)),
            ),
        ),
        TaskStep(
            "I run the tests.",
            (
                run(
                    "$tests",
                    1,
                    Find(
                        r"ERROR: [\w.]+\.(?P<test>\w+)\n  (?P<place>[\w/]+\.py:\d+): .+\n  (?P<error>AttributeError.+)",
                        "a test that fails",
                    ),
                ),
            ),
        ),
        TaskStep(
            "`$test` fails at $place: $error. So somebody still returns a dict, and my search did not find it. The "
            "middleware answers by itself too.",
            (
                read(
                    "$middleware",
                    Find(r"dict\(status=\d+", "answers that are built with dict(...)"),
                    keep="middleware_text",
                ),
            ),
        ),
        TaskStep(
            "It builds its answers with `dict(...)`, in a shape of its own. The same change here; the exception gets "
            "another name, since it would hide the function `error`.",
            (write("$middleware", RewrittenText("middleware_text", _MIDDLEWARE)),),
        ),
        TaskStep(
            "I run the tests again, and look for anything else that sets a status.",
            (
                run("$tests", 0, Find(r"(?P<count>\d+) tests, 0 failed", "no failure")),
                search("status", "library", Find(r"library/responses\.py:\d+:", "the new module")),
            ),
        ),
        TaskStep(
            "Done: $count tests pass, unchanged. `library/responses.py` has `Response` and its four functions. The "
            "handlers of books, members, loans and reports, $routing, $middleware and $app use them, and nothing else "
            'builds an answer. Every error has the shape `{"error": {"code", "message"}}`; statuses, messages '
            "and the other bodies are as they were."
        ),
    ),
)
