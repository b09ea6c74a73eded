"""Processes: what each runs, the supervisor that keeps them, the servers embedded beside them.

    berth up ─► supervisor ─┬─► postgres, nats                       embedded.py, nats_config.py
                            ├─► api (the engine inside), projector ┐
                            └─► relay, dispatcher, controller, past ┘ processes.py, each `python -m workers NAME`

Every child dies with the supervisor (`child.py`), and every setting is read once from the environment (`settings.py`).
"""
