"""`make bench`: what the daemon needs on this machine, and what it carries."""
