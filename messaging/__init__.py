"""NATS: the log relayed to streams, outstanding work dispatched, commands and reports answered."""
