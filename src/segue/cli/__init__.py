"""The command line: parses arguments, calls the library, renders what comes back.

Commands are imported when they are run, so that `segue --help` starts fast.
"""
