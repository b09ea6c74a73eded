"""Where a workload goes: the hosts of a group are filtered, scored, and the least (score, host name) wins.

    PlacementRequest ─► state ─► place ─► labels ─► rules ─► plug-ins ─► capacity ─► strategy ─► Placement
    (request.py)        index    └────────── filters.py ──────────┘      index       strategies   + explanation
                          │                      │                         │
                          └── each host counted by the first that drops it ┴─► none left: NoCapacity (explain.py)

The capacity index (index.py) keeps, per group, a table of its hosts (table.py), and per request shape in use their
scores (shape_scores.py). It touches only hosts that changed since (changes.py), computes once what is the same for
identical hosts (host_classes.py), and answers as the plain loop over all hosts would. Conditions come on top as masks
over the table. Strategies and filters are found through entry points (registry.py).
"""
