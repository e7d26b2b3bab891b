"""All daemons at one Redis, as one."""
