"""One file a resource kind; each turns HTTP into commands and queries, and decides nothing."""
