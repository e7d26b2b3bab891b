"""The doctor: what `broker doctor` tries at a running daemon, as its clients would, and what it says of it."""
