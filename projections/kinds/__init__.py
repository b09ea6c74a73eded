"""The views: a file a kind."""
