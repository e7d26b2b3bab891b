"""Fuzzing, without sockets: `python -m tests.fuzz --help`, or `make fuzz`.

`targets/` has what is fuzzed, a file each; `mutation.py` makes inputs, `campaign.py` runs them, `reading.py` reads what
comes out as a strict client would. Over sockets, a whole daemon: `tests/bad_input/test_mutations.py`.
"""
