"""Where a workload goes: the hosts of a group are filtered, scored, and the least (score, host name) wins.

    request ─► filters (state, place, labels, rules, plug-ins, capacity) ─► strategy's score ─► Placement
                        └─ counts by the first reason that dropped a host ─► Explanation, or NoCapacity

The capacity index keeps scores for each request shape in use and touches only hosts that changed since.
"""
