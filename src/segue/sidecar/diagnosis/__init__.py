"""What `segue doctor` and `segue run` check on the way from an agent to its provider, and the cure of each fault.

Probes look, and checks judge: a check is a pure function of what a probe has seen. Not here: printing (`segue.cli`).
"""
