"""Each turns HTTP into commands and queries, and decides nothing; `resources.py` those of every kind."""
