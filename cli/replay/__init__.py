"""Replaying a placement trace through the API, with a group, racks, hosts and a tenant of its own.

    trace.read ─► stage.build (group, racks, hosts, tenant, quota) ─► player.play ─► Outcome ─► report

The trace's order is kept: consecutive creations go out together (single requests first, so that times per request are
real, then batches), and a creation that follows deletions waits until what they freed is free.
"""
