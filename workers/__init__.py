"""Processes: what each runs, the supervisor that keeps them, the servers embedded beside them."""
