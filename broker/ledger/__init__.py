"""The ledger: evaluations as Redis keeps them, between the daemons that ask and the workers that answer."""
