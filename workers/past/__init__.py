"""The past: the log folded up to any position, for `as_of` and for verification, in processes of their own.

    api ─ NATS ─► pool ─┬─► worker: questions ─► folds ─► answer      (workers that keep folds, some questions in turn)
                        ├─► worker …
                        └─► worker: verification ─► replay            (one for each verification, ended with it)

The pool decides nothing but who answers: the worker whose fold is near, else the one with least to do. A worker makes a
step of each of its questions in turn, so that a long fold keeps no quick answer waiting.
"""
