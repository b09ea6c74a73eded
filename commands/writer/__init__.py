"""The one that decides: batches of commands in, events appended durably, answers out."""
