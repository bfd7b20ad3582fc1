"""Test doubles for users of segue and for segue's own tests. Import each from its own module; this package imports
none of them.

`scripted`: a model that plays the turns you give it, inside a real gateway, and records the requests it got.

    model = ScriptedUpstream([call("call_1", "add", "{}"), say("Five.")])
    async with serving(config, Router([ModelRule(model, ["gpt-*"])])) as (gateway, url): ...

`provider`: a model provider on a real port. It answers as you script it and keeps every request byte for byte.

    async with provided(lambda request: Answer(status=429, pieces=(b"{}",))) as provider:
        ...  # send to provider.url, then look at provider.requests

`replies`: what a provider answers in each API (Responses, Chat Completions, Messages, Gemini), streamed and whole.

    reply = make_reply("chat", {"role": "assistant", "content": "Hi."}, context)
    script = in_order([reply], streamed=True)  # for `provided`

`responses_server`: a Responses server (OpenAI's rules or plain ones) that goes wrong where you say, and counts runs.

    async with responding(OPENAI, model=playing([said("Hi.")])) as server:  # rules and models: `responses_rules`
        server.plan(None, Cut(at="events", events=3))  # `responses_faults`

`recorded_session`: one task of one agent as values, each request with its reply.

    session = RecordedSession(kind="mine", api="chat", streamed=True, transport="http", turns=turns)
    async with provided(replying(session)) as provider: ...

`task_provider`: a provider that solves the agent's tasks, in Chat Completions, Messages, Responses and Gemini.

    async with provided(solving_tasks) as provider: ...

`agent_provider`: the same for real coding agents, with the tools that each of them offers (`offered_tools`).

    model = AgentTaskProvider()
    async with provided(model.answer, model.answer_message) as provider: ...  # then: model.requests, model.repeated

`link`: a network path with latency, rate, loss and faults, in user space (`pacing` is its timing model).

    async with linked(host, port, LinkProfile(rtt_s=0.3, up_bytes_s=20_000)) as link:
        link.cut()  # reset every connection; also: blackhole(), refuse(), corrupt()

`tunnel_checker`: names every breach of docs/spec/tunnel.md in what the two ends of a tunnel's session send.

    checker = TunnelChecker(PresetLines(requests, replies))  # the specification has the lines
    checker.link_opened(); checker.sent("up", packet); checker.sent("down", answer)
    assert checker.problems == []

`tiny_model`: a GGUF model with random weights, for a gateway that runs the local engine in a test.

    write_tiny_model(path)
    upstream = LocalUpstream(ModelFile(path, "tiny"))

`store_conformance`: every rule of the store interface as a check that your own store must pass.

    for check in CHECKS:
        await check(MyStore())

`protocol_checker`: checks each event that a Responses server sends, and their order (extra `testing`).

    check_sse(body)  # raises ProtocolViolation
    checker = SocketChecker()  # WebSocket mode: checker.feed(parse_json(text)), then checker.finish()

`lean_checker`: the same for lean streams, which leave out what their client knows.

    check_sse(body, LeanStreamChecker("sse"))

Not here: workloads and measurements (`segue.bench`).
"""

from __future__ import annotations
