"""The log: the only truth. Encoding, the one guarded append, reading, checkpoints."""
