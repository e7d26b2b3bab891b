"""The stress run: many self-checking scenarios at once on several daemons of one Redis, and nothing left of them."""
