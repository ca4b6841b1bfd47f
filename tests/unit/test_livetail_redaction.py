"""What is taken out of a line, what stays, and that doing it twice changes nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar_node.known_secrets import KnownSecrets
from instar_node.livetail.redaction import Redactor

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAA\n-----END OPENSSH PRIVATE KEY-----"


def redact(text: str, *known: str) -> str:
    return Redactor(KnownSecrets(lambda: known)).redact(text)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"here:\n{KEY}\nthanks", "b3BlbnNzaC1rZXk"),
        ("cut off -----BEGIN RSA PRIVATE KEY-----\nMIIEow", "MIIEow"),
        (f"use {JWT} please", JWT),
        ("AKIAIOSFODNN7EXAMPLE is the id", "AKIAIOSFODNN7EXAMPLE"),
        ("git: ghp_" + "a1" * 18, "ghp_" + "a1" * 18),
        ("git: github_pat_" + "A1b2" * 10, "github_pat_"),
        ("glpat-ABCDEFGHIJ0123456789", "glpat-ABCDEFGHIJ0123456789"),
        ("slack xoxb-123456789012-abcdef", "xoxb-123456789012-abcdef"),
        ("the key sk-ant-api03-" + "Zz9_" * 10, "sk-ant-api03"),
        ("the key sk-" + "a1B2" * 10, "a1B2a1B2"),
        ("stripe sk_live_abcdEFGH12345678", "sk_live_abcdEFGH12345678"),
        ("maps AIza" + "S" * 35, "AIza" + "S" * 35),
        ("bot 123456789:AA" + "h" * 33, "AA" + "h" * 33),
        ("npm_" + "a" * 36, "npm_" + "a" * 36),
        ("hf_" + "Q" * 34, "hf_" + "Q" * 34),
        ("Authorization: Bearer abcdefghijklmnop1234", "abcdefghijklmnop1234"),
        ("postgres://app:hunter2@db/prod", "hunter2"),
        ("PASSWORD=hunter2", "hunter2"),
        ("export AWS_SECRET_ACCESS_KEY='abcd/efgh'", "abcd/efgh"),
        ('{"api_key": "value with spaces"}', "value with spaces"),
        ("token: 9f8e7d6c5b4a", "9f8e7d6c5b4a"),
        ("db_password = correcthorse", "correcthorse"),
        ('apikey := "correct(horse"', "correct(horse"),
        ('settings["secret"] = @"correct[horse"', "correct[horse"),
        ("private_key 'correct{horse';", "correct{horse"),
        ("theapikey: {{correct}horse", "{{correct}horse"),
        ("https://hooks.slack.com/services/T0/B0/" + "x" * 24, "x" * 24),
        ("gldt-ABCDEFGHIJ0123456789", "gldt-ABCDEFGHIJ0123456789"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0", "eyJzdWIiOiIxMjM0NTY3ODkwIn0"),
        ("https://hooks.slack.com/workflows/T0/A0/44/" + "x" * 24, "x" * 24),
        ("stripe rk_prod_abcdEFGH12345678", "rk_prod_abcdEFGH12345678"),
        ("docker login -p dckr_pat_" + "aB3-" * 7, "aB3-aB3-"),
        ("vault hvs." + "aB3_" * 7, "aB3_aB3_"),
        ("vercel vcp_" + "aB3x" * 8, "aB3xaB3x"),
        ("apk_" + "aB3x" * 12 + "==", "aB3xaB3x"),
        ("grafana glc_eyJ" + "aB3/" * 12 + "==", "aB3/aB3/"),
        ("FlyV1 fm2_" + "aB+/" * 12, "aB+/aB+/"),
        ("ali LTAI5" + "aB3x" * 5, "LTAI5aB3x"),
        ("ABSK" + "aB3/" * 28 + "=", "ABSKaB3/"),
        ("azure abc8Q~" + "aB3-" * 8, "8Q~aB3-"),
        ("EAAC" + "aB3x" * 25, "EAACaB3x"),
        ("curl -H 'Authorization: Basic djJlNEpYa0N=' host", "djJlNEpYa0N="),
        ("Authorization: 5eb4223e-5008-46e5-be67-c7b8f2732305", "5eb4223e-5008"),
        ("curl -s --user 'api:d2LkV78z!' https://mail", "d2LkV78z!"),
        ("curl -u ann@mail.example:pQ9wTxu4 https://mail", "pQ9wTxu4"),
        ('<add key="ClearTextPassword" value="Clear Text" />', "Clear Text"),
        ('ibm_platform_key="f-_RrJDVnuVh07HNTcmnQx_b6Cbc"', "f-_RrJDV"),
        ("some-SECRET-KEY=m1n2p3q4", "m1n2p3q4"),
        ('SNYK_TOKEN ?= "1234-ABCD"', "1234-ABCD"),
        ('"secret_key" => "sk#P7r5&@*x$utE"', "sk#P7r5&"),
        ('database_pw = "J8s!vR4#"', "J8s!vR4#"),
        ('password = "the quick brown fox"', "brown fox"),
    ],
)
def test_secrets_go(text: str, secret: str) -> None:
    cleaned = redact(text)
    assert secret not in cleaned
    assert "[redacted:" in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "The password is in the drawer, and the token economy is fine.",
        "Secret: everybody knows",
        "ask-me-anything-about-skiing-and-desk-lamps-tomorrow",
        "the key: turn left at the token shop",
        "see https://example.org/a:b@c and mailto:me@example.org",
        "task-list sk-short",
        "Bearer of bad news",
        "tokens = 3",
        "password = None",
        "$password = $input;",
        "password = ask(user)",
        "xox marks the spot; akia is a town",
        "monkey=banana",
        "token_type = 'invalid-parameter'",
        "token_url: https://login.example.org/v2/token",
        "self.password = self.distribution.password",
        "self.password = config['password']",
        "password = getpass.getpass('Password: ')",
        "token = tokens[0]",
        "sort_key = by_name_then_by_date_of_birth",
        "curl -u $USER:$PASSWORD https://example.org",
        "Authorization: Basic of course",
        "the authorization: see chapter 4 of the handbook",
        "apk_builder, cog_wheel, vcp_one and the figd_",
        "",
    ],
)
def test_ordinary_talk_stays_word_for_word(text: str) -> None:
    assert redact(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert redact("set PASSWORD=hunter2 and go") == "set PASSWORD=[redacted:assignment] and go"
    assert redact("at postgres://app:hunter2@db/prod") == "at postgres://app:[redacted:url-password]@db/prod"


def test_vault_values_go_wherever_they_stand() -> None:
    assert redact("say open-sesame twice: xopen-sesamex", "open-sesame") == (
        "say [redacted:vault] twice: x[redacted:vault]x"
    )


def test_the_longest_of_overlapping_vault_values_goes_whole() -> None:
    assert redact("open-sesame", "sesame", "open-sesame") == "[redacted:vault]"


def test_a_vault_value_too_short_to_mean_anything_is_left() -> None:
    assert redact("yes, yes", "yes") == "yes, yes"


def test_values_of_the_vault_are_asked_for_each_time() -> None:
    values: list[str] = []
    redactor = Redactor(KnownSecrets(lambda: tuple(values)))
    assert redactor.redact("open-sesame") == "open-sesame"
    values.append("open-sesame")
    assert redactor.redact("open-sesame") == "[redacted:vault]"


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        "secret:a",
        "secret 'a",
        'password="',
        "token = ",
        "key eyJ",
        "://a:",
        "glpat-",
        "curl -u ",
        "curl a:",
        "authorization: ",
        "_key=",
        'key="token" value="',
        "q~",
        "glc_eyJ",
        "token-",
        "token=f(",
        "token=a[",
    ],
)
def test_no_text_takes_quadratic_time(text: str) -> None:
    """The longest message there is, made of nothing but beginnings; quadratic would be hours."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        "from instar_node.known_secrets import KnownSecrets\n"
        "from instar_node.livetail.redaction import Redactor\n"
        "Redactor(KnownSecrets(lambda: ())).redact(sys.argv[1] * (200_000 // len(sys.argv[1])))\n"
    )
    assert subprocess.run([sys.executable, "-c", code, text], check=False).returncode == 0


def test_it_can_be_switched_off() -> None:
    redactor = Redactor(KnownSecrets(lambda: ("open-sesame",)), enabled=False)
    assert redactor.redact("PASSWORD=hunter2 open-sesame") == "PASSWORD=hunter2 [redacted:vault]"


SECRETS = (KEY, JWT, "PASSWORD=hunter2", "token: 9f8e7d6c5b4a", "Bearer abcdefghijklmnop1234", "a://b:c@d")
SCRAPS = ("=", ":", "'", '"', " ", "\n", "@", "secret", "redacted", "[redacted:", "[redacted:vault]")


@given(st.lists(st.sampled_from((*SECRETS, *SCRAPS, "open-sesame", "word")), max_size=12).map("".join))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = redact(text, "open-sesame", "redacted", "dacted:vault")
    assert redact(once, "open-sesame", "redacted", "dacted:vault") == once
