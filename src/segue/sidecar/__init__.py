"""The local end of the tunnel: a listener that behaves like the provider, and what it takes to send only what is new.

Not here: the gateway's end, and the machines that both ends share (`segue.tunnel`).
"""
