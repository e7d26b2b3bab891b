"""Fuzzing, without sockets: `python -m tests.fuzz --help`, or `make fuzz`.

`targets/` has what is fuzzed, a file each; `reading.py` reads what comes out as a strict client would. Two engines make
inputs: `guided.py` has atheris do it (`instrumented.py` is its process) and adds what is new to the kept corpus,
`corpus_folder.py`; `campaign.py` goes without, on the inputs of `mutation.py`. Over sockets, a whole daemon:
`tests/faults/test_malformed_input.py`.
"""
