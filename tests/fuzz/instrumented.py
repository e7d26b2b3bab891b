"""One target under atheris, in a process of its own: `python -m tests.fuzz.instrumented TARGET ARGUMENT...`.

What is read with (`READERS`) is instrumented as it is imported, so that libFuzzer sees which branches an input takes
and keeps those that take new ones. The arguments are libFuzzer's own: folders of inputs, and options. Half of the
mutations are libFuzzer's, half are ours, which know JSON.

Law: a failure is told with what repeats it, and ends the process with `FAILED`. What fails is
added to the kept corpus: mended, it is tried for ever; until then, `make test` fails.
"""

from __future__ import annotations

import os
import random
import shlex
import sys

import atheris
import trio

from tests.fuzz.campaign import failure_of, no_errors_logged
from tests.fuzz.corpus_folder import BROKE, keep
from tests.fuzz.mutation import Mutator

# The pure Python among what reads foreign bytes.
READERS = ["broker", "wsproto", "h2", "hpack", "hyperframe", "tomllib", "jwt", "json"]
FAILED = 3


def main() -> None:
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=READERS):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]

    def check(data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:
            failure = failure_of(target, data, error)
            where = keep(name, failure.data, BROKE)
            print(f"\nFAILED {failure}\n  kept as {where}", file=sys.stderr, flush=True)
            os._exit(FAILED)

    def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
        if seed % 2:
            return atheris.Mutate(data, max_bytes)
        return Mutator(random.Random(seed), target.words, max_bytes).next([data])

    async def run() -> None:
        # Some targets ask what time it is, hence trio. A merge starts processes of its own, by a shell: this is how.
        again = shlex.join([sys.executable, "-m", "tests.fuzz.instrumented", name])
        atheris.Setup([again, *arguments], check, custom_mutator=mutate)
        atheris.Fuzz()

    with no_errors_logged():
        trio.run(run)


if __name__ == "__main__":
    main()
