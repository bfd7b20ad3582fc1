"""A small coding agent: a model, six tools, and one folder that it may work in.

It is the workload that segue's benchmarks run, and an example of a program on top of `segue.client`: it sends what is
new, and leaves connections, continuation and recovery to the client. Not here: the command line and the screen
(`segue.cli.agent`), and anything about the wire.
"""
