"""The berth command. Speaks HTTP only."""
