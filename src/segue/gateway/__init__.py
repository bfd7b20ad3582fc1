"""The gateway: one executor for every transport, and the HTTP and WebSocket shells around it.

`app` builds, listens, drains and closes. `api` speaks to clients, `tunnel` to sidecars, and both ask `turns` to run
turns; `admin` is for operators. `services` is what `app` gives to all of them.
"""
