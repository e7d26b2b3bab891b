"""Several worker processes of one daemon, and who keeps them."""
