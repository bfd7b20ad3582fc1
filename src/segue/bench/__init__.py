"""The benchmark: meters, workloads and what is reported. It measures; it does not judge, except against the budgets."""
