"""The command line: it parses arguments, calls the library and renders the result.

`main` imports a command only when it runs it, so that `segue --help` starts fast.
"""
