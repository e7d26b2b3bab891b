"""Campaigns guided by coverage: each target under atheris for some seconds, in a process of its own.

What takes a branch that nothing in the kept corpus takes is added to it. Where the corpus has grown over its bounds,
it is made anew of all that there is. A run is not repeated by a seed: what it finds is kept instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.corpus_folder import BROKE, CORPUS, is_full, keep, kept, replace, write
from tests.fuzz.targets import TARGETS

# Longer inputs are tried by the engine without guidance; here they would fill the corpus.
INPUT_MAX_BYTES = 4096
# Of one input, instrumented, on a machine with other work.
_INPUT_SECONDS = 30
_MEMORY_MIB = 1024
_STARTS_IN_SECONDS = 120
_DONE = re.compile(r"DONE +cov: (\d+)")
_INPUTS = re.compile(r"stat::number_of_executed_units: +(\d+)")
_SAID_MAX = 6000


class CampaignFailed(Exception):
    """A promise was broken; `str()` is what was said of it."""


def run(names: Sequence[str], seconds: int, workers: int) -> int:
    """Every target for so many seconds, some at once. Returns the exit status."""
    failed = 0
    with ThreadPoolExecutor(workers) as pool:
        for name, campaign in [(name, pool.submit(_campaign, name, seconds)) for name in names]:
            try:
                print(f"{name}: {campaign.result()}", flush=True)
            except CampaignFailed as failure:
                failed += 1
                print(f"{name}: FAILED\n{failure}", flush=True)
    print(f"{failed} of {len(names)} targets failed." if failed else "Every promise was kept.")
    return 1 if failed else 0


def _campaign(name: str, seconds: int) -> str:
    with tempfile.TemporaryDirectory(prefix="broker-fuzz-") as folder:
        found, seeds, known, fatal = (Path(folder) / part for part in ("found", "seeds", "known", "fatal"))
        for place in (found, seeds, known, fatal, CORPUS / name):
            place.mkdir(parents=True, exist_ok=True)
        for data in TARGETS[name].seeds:
            write(seeds, data)
        words = Path(folder) / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in TARGETS[name].words if word))
        options = [
            f"-dict={words}",
            f"-max_total_time={seconds}",
            f"-max_len={min(TARGETS[name].max_bytes, INPUT_MAX_BYTES)}",
            f"-timeout={_INPUT_SECONDS}",
            f"-rss_limit_mb={_MEMORY_MIB}",
            f"-artifact_prefix={fatal}/",
            "-print_final_stats=1",
        ]
        folders = map(str, (found, seeds, CORPUS / name))
        try:
            said = _instrumented(name, seconds + _STARTS_IN_SECONDS, *folders, *options)
        except CampaignFailed:
            # What ended libFuzzer itself: an input that takes too long, or too much memory.
            for file in fatal.iterdir():
                keep(name, file.read_bytes(), BROKE)
            raise
        before = set(kept(name))
        for data in (*TARGETS[name].seeds, *before):
            write(known, data)
        added = _merged(name, known, found)
        for data in added:
            keep(name, data)
        if is_full(name):
            for file in known.iterdir():
                file.unlink()
            for data in TARGETS[name].seeds:
                write(known, data)
            replace(name, _merged(name, known, CORPUS / name))
    branches, inputs = _DONE.search(said), _INPUTS.search(said)
    assert branches is not None and inputs is not None, said[-_SAID_MAX:]
    return f"{inputs[1]} inputs, {branches[1]} branches; {len(kept(name))} inputs kept, {len(added)} new"


def _merged(name: str, known: Path, found: Path) -> Sequence[bytes]:
    """The fewest inputs that take what those that are known do not take; they are known then."""
    before = {file.name for file in known.iterdir()}
    _instrumented(name, 600, str(known), str(found), "-set_cover_merge=1", f"-max_len={INPUT_MAX_BYTES}")
    return [file.read_bytes() for file in known.iterdir() if file.name not in before]


def _instrumented(name: str, seconds: int, *arguments: str) -> str:
    """What libFuzzer says.

    Raises:
        CampaignFailed: it found something.
    """
    command = [sys.executable, "-m", "tests.fuzz.instrumented", name, *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
    )
    said = done.stdout + done.stderr
    if done.returncode:
        told = said.find("\nFAILED ")
        raise CampaignFailed(said[told + 1 :] if told >= 0 else said[-_SAID_MAX:])
    return said


def _escaped(word: bytes) -> str:
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\x{byte:02x}" for byte in word)
