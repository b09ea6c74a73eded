"""The HTTP API: authentication, problems, live streams, and one file of routes a resource kind."""
