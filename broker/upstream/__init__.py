"""Redis, upstream of the broker: the link that listens, the connection under it, the embedded server."""
