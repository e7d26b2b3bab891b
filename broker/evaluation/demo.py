"""The demo: models that are none, with canned answers, to try evaluations without keys.

Laws: nothing is asked and nothing leaves the machine. Every text begins with `Demo:`. The same texts get
the same answer, as each model draws its words and numbers from a seed, its name and what was sent. The
handlers are those of real models, so what clients see comes in the wire's order.
What was sent is counted, never quoted: it could hold a verdict. `fail NAME` in it has that model fail half
way, so that one can see what a client makes of that.
Bounds: an answer has under 120 words and takes about ten seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from random import Random

import trio
from attrs import frozen

from broker.errors import EvaluationError
from broker.evaluation import council, creative
from broker.evaluation.handler import Handler
from broker.evaluation.prompt import COUNCIL_PLACES, CREATIVE_PLACES, Prompt

MODELS = ("gemini", "claude", "gpt4", "perplexity")
QUORUM = 2
# Words a second that a person reads without haste are about four; a demo may be a little ahead of them.
_WORDS_A_SECOND = 7.0
_SECONDS_BEFORE_FIRST = (0.2, 0.9)
_WORDS_SPOKEN_A_SECOND = 2.5

# Places alone, as a demo model needs no instructions but the kind of a review.
_COUNCIL_PROMPT = Prompt("council", "{transcript}", COUNCIL_PLACES)
_CREATIVE_PROMPT = Prompt("{type}", "{content}", CREATIVE_PLACES)

_NOUNS = {"psychology": "psychology", "hookStrength": "the hook", "novelty": "novelty"}
_BEGINNINGS = {
    "gemini": "I look at the structure first.",
    "claude": "I try to watch it as a tired viewer would.",
    "gpt4": "I compare it with what runs in this slot every day.",
    "perplexity": "I look for what could be checked.",
}
# By part of the verdict: what is said of a low number, and of a high one. As many as there are models, so that no two
# say the same.
_JUDGEMENTS = {
    "hookStrength": (
        (
            "The opening explains before it shows, and a thumb is faster than an explanation.",
            "The first seconds could open any video; nothing in them has to be answered.",
            "The first sentence is about the maker and not about the viewer.",
            "It takes too long until something is at stake.",
        ),
        (
            "The opening begins in the middle of a moment, and one wants to know how it ends.",
            "The first line is short and a little odd, which is what makes a viewer stay.",
            "The first seconds ask something that one answers before one has noticed.",
            "The picture of the first line is clear even without sound.",
        ),
    ),
    "psychology": (
        (
            "It names the product before it names the need, so the promise has nothing to answer.",
            "It asks for trust and gives no reason for it.",
            "The promise is too large for the seconds that it has.",
            "There are two calls at the end, and two are none.",
        ),
        (
            "It names the need in the viewer's own words and only then offers a way out.",
            "The promise is small enough to be believed, and there is one thing to do next.",
            "It says what it costs to do nothing, and does not frighten anybody with it.",
            "The step that it asks for can be taken tonight.",
        ),
    ),
    "novelty": (
        (
            "Most advertisements of its kind say the same in the same order.",
            "I could guess the ending after the second sentence.",
            "The tone is that of the last ten in this market.",
            "Its claim can be found on every page of its competitors.",
        ),
        (
            "The turn in the middle is not where such advertisements put it.",
            "It leaves out the superlatives, which is rare enough to be noticed.",
            "It admits a weakness, and few dare to.",
            "The comparison that it makes is one that I have not met before.",
        ),
    ),
}
_CREATIVE = {
    "creative": (
        "The idea fits into one sentence, and that is its strength.",
        "The middle repeats the opening with other words.",
        "Change the last line first: end on the picture and not on the name.",
    ),
    "technical": (
        "The order is clear: one thought a sentence, one sentence a shot.",
        "Two of the sentences are too long to be read while something moves.",
        "Change the pace first: leave half a second of rest before the offer.",
    ),
    "performance": (
        "People who have the problem will stop, as it is named early.",
        "People who do not have it yet are given no reason to watch on.",
        "Change the call first: say what happens after the click.",
    ),
}


def handlers(*, seed: int = 0, pace: float = 1.0) -> dict[str, Handler]:
    """A handler for each kind of evaluation.

    Args:
        seed: equal seeds give equal answers to equal texts.
        pace: how many times as slow as usual; 0 does not wait at all.
    """
    asked = {
        kind: [DemoModel(name, speech, seed, pace) for name in MODELS]
        for kind, speech in ((council.KIND, _council_answer), (creative.KIND, _creative_answer))
    }
    return {
        council.KIND: council.Council(asked[council.KIND], _COUNCIL_PROMPT, QUORUM).evaluate,
        creative.KIND: creative.Creative(asked[creative.KIND], _CREATIVE_PROMPT).evaluate,
    }


@frozen
class DemoModel:
    """One of them; a `ChatModel`.

    Args:
        speech: the whole answer, of its name, the instructions, the matter, and chance.
    """

    name: str
    speech: Callable[[str, str, str, Random], str]
    seed: int
    pace: float

    async def ask(self, messages: Sequence[Mapping[str, str]], hear: Callable[[str], Awaitable[None]]) -> None:
        """Say the answer in pieces of a few words.

        Raises:
            EvaluationError: the text has `fail NAME`. Besides, whatever `hear` raises.
        """
        instructions, matter = (message["content"] for message in messages)
        # The lines around what was sent carry a mark, which is another one every time.
        matter = "\n".join(matter.split("\n")[1:-1])
        random = Random(f"{self.seed} {self.name} {instructions} {matter}")
        pieces = list(pieces_of(self.speech(self.name, instructions, matter, random), random))
        is_failing = re.search(rf"\bfail {self.name}\b", matter) is not None
        await trio.sleep(self.pace * random.uniform(*_SECONDS_BEFORE_FIRST))
        for piece in pieces[: len(pieces) // 3] if is_failing else pieces:
            await hear(piece)
            await trio.sleep(self.pace * len(piece.split()) / _WORDS_A_SECOND * random.uniform(0.6, 1.4))
        if is_failing:
            raise EvaluationError(f"Demo: the text says `fail {self.name}`")


def pieces_of(text: str, random: Random) -> Iterator[str]:
    """`text`, cut behind one to three words each; a verdict at its end comes as one piece."""
    prose, fence, verdict = text.partition("```")
    words = re.findall(r"\S+\s*", prose)
    while words:
        count = random.randint(1, 3)
        yield "".join(words[:count])
        del words[:count]
    if fence:
        yield fence + verdict


def _council_answer(name: str, instructions: str, matter: str, random: Random) -> str:
    parts = {part: random.randint(38, 94) for part in _NOUNS}
    score = round(sum(parts.values()) / len(parts) + random.uniform(-4, 4))
    # Which sentence is whose depends on what was sent, too.
    turn = MODELS.index(name) + len(matter)
    judgements = {part: _JUDGEMENTS[part][number >= 66][turn % len(MODELS)] for part, number in parts.items()}
    said = list(judgements.values())
    random.shuffle(said)
    best, worst = max(parts, key=lambda part: parts[part]), min(parts, key=lambda part: parts[part])
    verdict = {
        "score": score,
        **parts,
        "reasoning": f"Demo: best in {_NOUNS[best]} ({parts[best]}), weakest in {_NOUNS[worst]} ({parts[worst]}). "
        f"{judgements[worst]}",
    }
    prose = " ".join([f"Demo: canned words, no model was asked. {_counts(matter)} {_BEGINNINGS[name]}", *said])
    return f"{prose}\n\n```json\n{json.dumps(verdict)}\n```"


def _creative_answer(name: str, instructions: str, matter: str, random: Random) -> str:
    works, does_not, first = _CREATIVE[instructions]
    return f"Demo: canned words, no model was asked. {_counts(matter)} {works} {does_not}\n\n{first}"


def _counts(text: str) -> str:
    words = len(text.split())
    seconds = round(words / _WORDS_SPOKEN_A_SECOND)
    return f"The text has {words} {'word' if words == 1 else 'words'}, about {seconds} s when spoken."
