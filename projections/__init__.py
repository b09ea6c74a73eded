"""The read side: a cache of what the log says, in tables that can be dropped at any time and come back the same.

    log ─► projector ─► changes ─► tables (row = f(one state), rows.py) ─► queries ─► api
              │ fold                                  lists: which rows, in which order │
              └ schema: one a definition, dropped when unread        facts: joined for a page ┘
                                                                       documents.py: one form

`resources.resource` gives the same JSON straight from a fleet: for answers to commands, and for the past.
"""
