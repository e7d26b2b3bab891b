"""Settings of who may connect: what is refused alone, what beside another, and what no message holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from broker.cli import check, config
from broker.config.access import Auth, ListenTls
from broker.config.key import check_jwks
from broker.config.names import SETTINGS, variable
from broker.config.secret import MASK, masked
from broker.config.sources import load
from broker.errors import ConfigError

HASH = "0123456789abcdef" * 4
SECRET = "it takes thirty-two bytes or more"
# What a secret is made of here is found in no message of ours.
LETTERS = "ÄÖÜäöü"

WORLD = """\
 is open to other machines, where everybody could read every channel; add one of these to the settings
    [auth]
    secret = "..."                # clients have tokens signed with it: 32 bytes or more, made by `openssl rand -base64 48`, say
    key_file = "tokens.pem"       # or with a private key; this is the public one (or jwks = "https://...")
    publish_keys = ["NAME:HASH"]  # services have an API key, made by `broker key create NAME`; clients see
                                  # what rules.anonymous_subscribe says
    mode = "off"                  # no authentication: whoever can connect is trusted
or listen on a loopback address, such as 127.0.0.1:8000, behind a proxy"""  # noqa: E501


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "broker.toml"


def problems(
    text: str, at: Path, *, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    at.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(flags=flags or {}, environ=environ or {}, file=at)
    return [(problem.where.replace(f"{at}: ", ""), problem.what) for problem in caught.value.problems]


def test_a_section_inside_another(file: Path) -> None:
    file.write_text("[listen]\nbacklog = 7\n[listen.tls]\ncertificate = 'a.pem'\nkey = 'b.pem'\n")
    environ = {"BROKER_LISTEN_TLS_KEY": "c.pem"}
    effective = load(flags={"listen.tls.check_seconds": "9"}, environ=environ, file=file)
    assert effective.config.listen.backlog == 7
    assert effective.config.listen_tls == ListenTls(certificate="a.pem", key="c.pem", check_seconds=9.0)
    assert {name: origin for name, origin in effective.origins.items() if origin != "default"} == {
        "listen.backlog": str(file),
        "listen.tls.certificate": str(file),
        "listen.tls.key": "environment BROKER_LISTEN_TLS_KEY",
        "listen.tls.check_seconds": "flag --listen-tls-check-seconds",
    }


def test_a_section_inside_another_that_is_wrong(file: Path) -> None:
    assert sorted(problems("[listen]\ntls = true\nbacklog = 0\n", file)) == [
        ("listen.backlog", "0 is out of bounds; write 1 to 65535"),
        ("listen.tls", "must be a section, its name in brackets on a line of its own, not true"),
    ]
    assert problems("[listen.tls]\nkye = 'a'\ncolour = 3\ncheck_seconds = 0\n[listen.tsl]\n[tls]\n", file) == [
        ("listen.tsl", "is not a setting; did you mean listen.tls?"),
        ("listen.tls.kye", "is not a setting; did you mean listen.tls.key?"),
        ("listen.tls.colour", "is not a setting; [listen.tls] has certificate, key, addresses, check_seconds"),
        ("listen.tls.check_seconds", "0 is out of bounds; write at least 0.1"),
        ("tls", "is not a section; did you mean listen.tls?"),
    ]
    assert problems("['listen.tls']\nkey = 'a'\n", file) == [
        ("'listen.tls'", "is not a section in quotes; write [listen.tls] without")
    ]


def test_what_an_unreadable_section_was_to_say_is_not_guessed(file: Path) -> None:
    wrong = [("listen", "must be a section, its name in brackets on a line of its own, not 3")]
    assert problems("listen = 3\n", file, environ={"BROKER_LISTEN_TLS_KEY": "a.pem"}) == wrong
    assert problems("auth = 3\n", file, flags={"listen.addresses": ("0.0.0.0:80",)}) == [
        ("auth", "must be a section, its name in brackets on a line of its own, not a number")
    ]


def test_the_old_name_of_allowed_origins(file: Path) -> None:
    environ = {"BROKER_LISTEN_CORS_ORIGINS": "*"}
    flags = {"listen.cors_origins": ("*",)}
    assert problems("[listen]\ncors_origins = ['*']\n", file, flags=flags, environ=environ) == [
        ("flag --listen-cors-origins", "has a new name; write --listen-allowed-origins"),
        ("environment BROKER_LISTEN_CORS_ORIGINS", "has a new name; write BROKER_LISTEN_ALLOWED_ORIGINS"),
        ("listen.cors_origins", "has a new name; write listen.allowed_origins"),
    ]


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "10.0.0.5:80", "[::ffff:127.0.0.1]:80", "web.example:80"])
def test_the_world_does_not_get_in_by_default(address: str, file: Path) -> None:
    text = f"[listen]\naddresses = ['127.0.0.1:80', '{address}', '0.0.0.0:81']\n"
    assert problems(text, file) == [("listen.addresses", address + WORLD)]


def test_check_prints_what_to_add() -> None:
    done = CliRunner().invoke(check.command, env={"BROKER_CONFIG": "", "BROKER_LISTEN_ADDRESSES": "0.0.0.0:80"})
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"environment BROKER_LISTEN_ADDRESSES: 0.0.0.0:80{WORLD}\n"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("auth.secret", SECRET),
        ("auth.key_file", "a.pem"),
        ("auth.jwks", "keys.json"),
        ("auth.publish_keys", (f"ci:{HASH}",)),
        ("auth.admin_keys", (f"ci:{HASH}",)),
        ("auth.mode", "off"),
    ],
)
def test_each_way_to_let_the_world_in(setting: str, value: object) -> None:
    flags = {"listen.addresses": ("0.0.0.0:80",), setting: value}
    assert load(flags=flags, environ={}, file=None).config.listen.addresses == ("0.0.0.0:80",)


@pytest.mark.parametrize("setting", ["auth.secret", "auth.key_file", "auth.jwks", "auth.publish_keys"])
def test_an_empty_key_is_none(setting: str) -> None:
    with pytest.raises(ConfigError, match="is open to other machines"):
        load(flags={"listen.addresses": ("0.0.0.0:80",)}, environ={variable(setting): ""}, file=None)


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/run/b.sock"])
def test_this_machine_needs_no_key(address: str) -> None:
    assert load(flags={"listen.addresses": (address,)}, environ={}, file=None).config.auth == Auth()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[listen]\nproxy_protocol = ['127.0.0.1:8000']",
            [
                (
                    "listen.proxy_protocol",
                    "needs listen.trusted_proxies, as nobody else is believed; "
                    "name your proxies there, such as 10.0.0.5",
                )
            ],
        ),
        (
            "[listen]\nproxy_protocol = ['127.0.0.1:8000', '127.0.0.1:1']\ntrusted_proxies = ['::1']",
            [("listen.proxy_protocol", "127.0.0.1:1 is not among listen.addresses; write it as there")],
        ),
        (
            "[listen.tls]\nkey = 'a'\naddresses = ['127.0.0.1:8000']",
            [
                ("listen.tls.key", "does nothing without listen.tls.certificate; set that too, or remove this"),
                ("listen.tls.addresses", "does nothing without listen.tls.certificate; set that too, or remove this"),
            ],
        ),
        (
            "[listen.tls]\ncertificate = 'a'\naddresses = ['127.0.0.1:8001']",
            [("listen.tls.addresses", "127.0.0.1:8001 is not among listen.addresses; write it as there")],
        ),
        (
            f"[auth]\nmode = 'off'\nadmin_keys = ['a:{HASH}']",
            [
                (
                    "auth.mode",
                    'is "off", but auth.admin_keys is set, which would then protect nothing; remove one of them',
                )
            ],
        ),
        (
            "[auth]\nissuer = 'a'\ncookie = 'b'",
            [
                (
                    setting,
                    "checks nothing without a key for tokens; set one of auth.secret, auth.key_file, auth.jwks, "
                    "or remove this",
                )
                for setting in ("auth.issuer", "auth.cookie")
            ],
        ),
        (
            "[auth]\nkey_file = 'a'\ncookie = 'b'\n[listen]\nallowed_origins = ['https://a.example', '*']",
            [
                (
                    "auth.cookie",
                    "lets the pages of every origin act for whoever is logged in, as listen.allowed_origins has *; "
                    "name the origins there",
                )
            ],
        ),
        (
            "[clients]\noutbox_max_bytes = 268435457",
            [
                (
                    "clients.outbox_max_bytes",
                    "268435457 is more than limits.outbox_total_bytes, which is 268435456 (default); "
                    "lower this or raise that",
                )
            ],
        ),
    ],
)
def test_settings_that_do_not_fit_together(text: str, told: list[tuple[str, str]], file: Path) -> None:
    assert problems(text, file) == told


def test_a_key_of_which_nobody_knows_what_it_was_to_be_is_not_missed(file: Path) -> None:
    text = "[listen]\naddresses = ['0.0.0.0:80']\n[auth]\nsecret = 'short'\ncookie = 'a'\n"
    assert problems(text, file) == [("auth.secret", "has less than 32 bytes; make one with `openssl rand -base64 48`")]


@pytest.mark.parametrize("place", ["", "keys.json", "/etc/keys.json", "https://id.example/keys", "https://[::1]:8/k"])
@pytest.mark.parametrize("local", ["http://localhost/k", "http://127.0.0.1:9/k", "http://[::1]/k"])
def test_where_keys_of_tokens_may_come_from(place: str, local: str) -> None:
    check_jwks(place)
    check_jwks(local)


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("http://id.example/k", "must start with https://"),
        ("http://127.0.0.1.example/k", "must start with https://"),
        ("http://localhost.example/k", "must start with https://"),
        ("http://10.0.0.5/k", "must start with https://"),
        ("ftp://id.example/k", "must start with https://"),
        ("file:///etc/passwd", "has no usable host and port"),
        ("https://", "has no usable host and port"),
        ("https://id.example:99999/k", "has no usable host and port"),
        ("https://id example/k", "has no usable host and port"),
        ("https://u:hunter2@id.example/k", "has a user or a password"),
        ("http://localhost@id.example/k", "has a user or a password"),
    ],
)
def test_where_they_may_not(place: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        check_jwks(place)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("10.0.0.5/8", "'10.0.0.5/8' is an address inside a network; write 10.0.0.0/8 for all of it"),
        ("fd00::1/8", "'fd00::1/8' is an address inside a network; write fd00::/8 for all of it"),
        ("fe80::1%eth0", "'fe80::1%eth0' is no network; write 10.0.0.5, 10.0.0.0/8, fd00::/8 or unix"),
        ("10.0.0.0/33", "'10.0.0.0/33' is no network; write 10.0.0.5, 10.0.0.0/8, fd00::/8 or unix"),
        ("proxy.example", "'proxy.example' is no network; write 10.0.0.5, 10.0.0.0/8, fd00::/8 or unix"),
    ],
)
def test_proxies_that_are_refused(text: str, what: str, file: Path) -> None:
    assert problems(f"[listen]\ntrusted_proxies = ['{text}']\n", file) == [("listen.trusted_proxies", what)]


@pytest.mark.parametrize(
    "origin", ["https://*.*.example", "https://*", "https://a.*.example", "*.example", "null", "**"]
)
def test_origins_that_are_refused(origin: str, file: Path) -> None:
    (problem,) = problems(f"[listen]\nallowed_origins = ['{origin}']\n", file)
    assert problem[1].startswith(f"'{origin}' is not a web origin; write scheme://host or scheme://host:port in lower")


def test_patterns_keys_and_names_that_are_refused(file: Path) -> None:
    text = f"""
[rules]
user_subscribe = ["a::b", "a:b:c:d", "a/b", "{{user}}", "", "ok:*"]
[auth]
publish_keys = ["ci", "ci:{HASH.upper()}", "a b:{HASH}", "ci:{HASH}0"]
cookie = "a;b"
audience = ["a", ""]
"""
    pattern = "use up to 128 letters, digits and _ - . @ = + ~, and * for any of them, {sub} for the user"
    key = (
        "auth.publish_keys",
        "is not NAME:HASH, as `broker key create NAME` writes it; the key itself does not go here",
    )
    assert problems(text, file) == [
        ("rules.user_subscribe", "'a::b' has an empty part; write * for any"),
        ("rules.user_subscribe", "'a:b:c:d' has 4 parts; a channel has at most 3"),
        ("rules.user_subscribe", f"'a/b' has a part that no channel has; {pattern}"),
        ("rules.user_subscribe", f"'{{user}}' has a part that no channel has; {pattern}"),
        ("rules.user_subscribe", "'' is no channel pattern of 1 to 400 characters, such as job_progress:*"),
        *[key] * 4,
        ("auth.cookie", "is no cookie's name; use letters, digits and - _ . and at most 64 of them, such as token"),
        ("auth.audience", "has an empty text; remove it"),
    ]


SECRETS = [setting for setting, attribute in SETTINGS.items() if attribute.metadata["secret"]]


def test_what_is_secret() -> None:
    assert SECRETS == ["auth.secret", "auth.publish_keys", "auth.admin_keys", "redis.url"]


@given(
    st.sampled_from(SECRETS),
    st.text(st.sampled_from(LETTERS + "0:/@?= "), min_size=1).filter(lambda text: set(text) & set(LETTERS)),
)
def test_no_message_holds_a_secret(setting: str, secret: str) -> None:
    # A Redis URL has its own test: the place of its password is what tells it.
    if setting == "redis.url":
        secret = f"redis://:{secret}@db:x"
    try:
        effective = load(flags={}, environ={variable(setting): secret}, file=None)
    except ConfigError as error:
        said = str(error)
    else:
        said = repr(effective) + str(masked(secret, "all"))
    assert not set(said) & set(LETTERS)
    assert "\\x" not in said


@pytest.mark.parametrize(
    "text",
    [
        "auth = {}",
        "[auth]\nsecret = [{}]",
        "[auth]\nsecret = {{ a = {} }}",
        "[auth]\nadmin_keys = {}",
        "[auth]\nadmin_keys = [{}]",
        "[auth]\nadmin_keys = [[{}]]",
        "[auth]\nsecret = {} oops",
        "redis = {}",
        "[redis]\nurl = {}",
    ],
)
@pytest.mark.parametrize("secret", ["'hunter2'", "31337.0", "31337"])
def test_no_place_in_a_file_lets_a_secret_out(text: str, secret: str, file: Path) -> None:
    for where, what in problems(text.format(secret), file):
        assert "hunter2" not in where + what
        assert "31337" not in where + what


def test_show_masks_all_of_a_secret(file: Path) -> None:
    file.write_text(f"[auth]\nsecret = '{SECRET}@shown://:?'\npublish_keys = ['ci:{HASH}', 'cd:{HASH}']\n")
    said = CliRunner().invoke(config.command, ["show", "--config", str(file)]).stdout
    assert f'auth.secret = "***"  # {file}\n' in said
    assert f'auth.publish_keys = ["ci:***", "cd:***"]  # {file}\n' in said
    assert "auth.admin_keys = []  # default\n" in said
    assert "shown" not in said and HASH not in said
    assert MASK == "***"
