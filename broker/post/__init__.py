"""A worker's place in its daemon: what it was given, and how it is talked to."""
