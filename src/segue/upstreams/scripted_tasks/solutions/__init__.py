"""One solution for each task, as a table of steps."""
