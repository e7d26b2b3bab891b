"""The fault suite: what the daemon promises, a row each, tried and measured. `make faults`; `docs/reliability.md`."""
