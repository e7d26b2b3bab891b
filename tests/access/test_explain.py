"""`broker explain`: the daemon's own rules, read with the settings in force."""

from __future__ import annotations

from click.testing import CliRunner, Result

from broker.auth.apikey import line_of, new_key
from broker.cli.explain import command
from tests.access.visitor import SECRET, token


def explained(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
    return CliRunner().invoke(command, arguments, stdin, env={"BROKER_AUTH_SECRET": SECRET, **environ})


def test_what_a_token_may_and_may_not() -> None:
    text = token("ann", subscribe=["job:*", "alerts:{sub}"])
    found = explained("--token", text, "subscribe", "alerts:ann")
    assert (found.exit_code, found.output) == (
        0,
        "user ann may subscribe alerts:ann\ndecided by claim subscribe: the token's claim subscribe has alerts:{sub}\n",
    )
    found = explained("--token", "-", "subscribe", "alerts:7", stdin=f"{text}\n")
    assert (found.exit_code, found.output) == (
        1,
        "user ann may not subscribe alerts:7\ndecided by owner: the channel belongs to user 7 alone\n",
    )


def test_who_has_no_token_an_api_key_or_a_bad_token() -> None:
    found = explained("subscribe", "public:1", BROKER_RULES_ANONYMOUS_SUBSCRIBE="public:*")
    assert found.output.startswith("anonymous may subscribe public:1\ndecided by rules.anonymous_subscribe: ")
    key = new_key("ci")
    found = explained("--token", key, "publish", "job:1", BROKER_AUTH_PUBLISH_KEYS=line_of(key))
    assert found.output.startswith("API key ci may publish job:1\ndecided by rules.key_publish: ")
    found = explained("--token", token("ann", seconds=-9), "subscribe", "job:1")
    assert (found.exit_code, "expired" in found.output) == (1, True)
    assert explained("subscribe", "job::").exit_code == 1


def test_without_authentication_everybody_may_subscribe() -> None:
    found = CliRunner().invoke(command, ["subscribe", "job:1"], env={"BROKER_AUTH_SECRET": ""})
    assert found.output == "open may subscribe job:1\ndecided by open: authentication is off\n"
