"""evaluators.toml: the file that comes along is taken; all that is wrong with another is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import ConfigError
from broker.evaluation.settings import EvaluatorSettings, ModelSettings

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    file = tmp_path / "e.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        EvaluatorSettings.from_file(file)
    return [str(problem).removeprefix(f"{file}: ") for problem in caught.value.problems]


def test_the_file_that_comes_along() -> None:
    settings = EvaluatorSettings.from_file(ROOT / "conf" / "evaluators.toml")
    assert settings.council is not None
    assert settings.creative is not None
    assert {name: (model.base_url, model.key_env) for name, model in settings.models.items()} == {
        "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
        "claude": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        "gpt4": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        "perplexity": ("https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
    }
    assert (settings.council.models, settings.council.quorum) == (("gemini", "claude", "gpt4", "perplexity"), 2)
    assert settings.creative.models == ("claude", "gpt4", "gemini", "perplexity")


def test_defaults_and_a_section_left_out(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("judge\n---\n{transcript}")
    file = tmp_path / "e.toml"
    file.write_text(
        '[models.a]\nbase_url = "http://[::1]:1/v1/"\nmodel = "m"\nparameters = { n = 1, x = [{ y = "z" }] }\n'
        '[council]\nmodels = ["a"]\nquorum = 1\nprompt = "p.md"\n'
    )
    settings = EvaluatorSettings.from_file(file)
    assert settings.models == {
        "a": ModelSettings("http://[::1]:1/v1", "m", "", 120.0, 60.0, {"n": 1, "x": [{"y": "z"}]})
    }
    assert settings.creative is None


def test_all_problems_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_text("judge {transcript} {word}\n---\n")
    found = problems(
        tmp_path,
        """
        extra = 1
        [models.a]
        base_url = "https://user:hunter2@host/v1"
        model = ""
        key_env = "sk-hunter2"
        timeout_seconds = 0
        silence_seconds = true
        parameters = { stream = false, when = 2026-01-01 }
        key = "sk-hunter2"
        [models.complete]
        base_url = "ftp://host"
        [council]
        models = ["a", "b", "complete"]
        quorum = 4
        prompt = "bad.md"
        [creative]
        models = ["a", "a"]
        prompt = "none.md"
        """,
    )
    assert found == [
        "extra: is not a section; the sections are models, council, creative",
        "models.a.base_url: has a user, a query or a fragment; the key goes into a variable that key_env names",
        "models.a.model: is empty or has a character that cannot be printed; write it anew",
        'models.a.key_env: must be the name of an environment variable such as "OPENAI_API_KEY", never the key',
        "models.a.timeout_seconds: 0 is out of bounds; write 0.1 to 3600",
        "models.a.silence_seconds: must be a number such as 60.0, not true",
        "models.a.parameters: stream is written by the worker; remove it",
        "models.a.parameters: has a date, a time, or a number that is not finite, which JSON has not; remove it",
        "models.a.key: is not a setting; "
        "there are base_url, model, key_env, timeout_seconds, silence_seconds, parameters",
        "models.complete: cannot be a model's name; use 1 to 64 letters, digits, _ . - "
        "and neither aggregating nor complete",
        "models.complete.base_url: is not an http or https URL such as https://api.openai.com/v1",
        "models.complete.model: is missing; write it",
        "council.prompt: 'bad.md': {word} is not a place; the places are features, mark, transcript, videoUrl",
        "council.prompt: 'bad.md': {transcript} is above the line ---; what clients send belongs below it",
        "council.prompt: 'bad.md': has no {transcript} below the line ---",
        "creative.prompt: 'none.md': cannot be read: No such file or directory; "
        "paths are relative to the settings file",
        "creative.models: names 'a' twice; name each model once",
    ]
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["models: has no model; write a section for each, such as [models.gemini]",
              "has neither [council] nor [creative]; write one of them"]),
        ("models = 5\n[creative]\nmodels = []", [
            "models: has no model; write a section for each, such as [models.gemini]",
            "creative.prompt: is missing; write it",
            'creative.models: must be a list of names of models such as ["gemini", "claude"]',
        ]),
        ('council = "x"\n[models]\na = 5', [
            "models.a: must be a section, its name in brackets, not 5",
            "council: must be a section, its name in brackets, not the text 'x'",
        ]),
        ("a = [", ["is not TOML: Invalid value (at end of document); conf/evaluators.toml is an example"]),
        (b"\xff", ["is not UTF-8; save the file in that encoding"]),
    ],
)  # fmt: skip
def test_shapes_that_are_wrong(tmp_path: Path, text: str | bytes, wanted: list[str]) -> None:
    found = problems(tmp_path, text)
    assert [line.removeprefix(f"{tmp_path}/e.toml: ") for line in found] == wanted


def test_names_and_quorum_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("judge\n---\n{transcript}")
    found = problems(
        tmp_path,
        '[models.a]\nbase_url = "http://h"\nmodel = "m"\n[council]\nmodels = ["a", "b"]\nquorum = 3\nprompt = "p.md"\n',
    )
    assert found == [
        "council.models: 'b' has no section; write [models.b] or remove it",
        "council.quorum: 3 is more than the 2 models of the council; lower it",
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        EvaluatorSettings.from_file(tmp_path / "none.toml")
    assert str(caught.value) == (
        f"{tmp_path}/none.toml: cannot be read: No such file or directory; name a file such as conf/evaluators.toml"
    )
