"""The read side: tables, rows as a function of state, the projector that fills them, the queries on them."""
