"""Processes: what each runs, the supervisor that keeps them, the servers embedded beside them.

    berth up ─► supervisor ─┬─► postgres, nats                       embedded.py, nats_config.py
                            ├─► engine, api                          deciding.py, serving.py
                            └─► projector, relay, dispatcher, controller, past    processes.py

Each is `python -m workers NAME`. Every child dies with the supervisor (`child.py`), and every setting is read once from
the environment (`settings.py`).
"""
