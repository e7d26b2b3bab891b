"""Who a client is and what it may do: rules only, no I/O, no clock."""
