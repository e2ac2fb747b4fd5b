import pytest

from rlhf_core.plugins.base import Use
from rlhf_flows.graph.render.safe import MASK, masked, options, shown


@pytest.mark.parametrize(
    "name",
    ["token", "api_key", "apiKey", "OPENAI_API_KEY", "password", "client_secret", "Authorization", "passwd", "api_keys",
     "webhook_url", "credentials", "secret_access_key", "auth"],
)  # fmt: skip
def test_an_option_is_a_secret_by_its_name(name):
    assert masked("hunter2", name) == MASK
    assert masked({"headers": {name: "hunter2"}, "list": [{name: ["hunter2"]}]}) == {
        "headers": {name: MASK},
        "list": [{name: [MASK]}],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", 512), ("token_variable", "LABEL_STUDIO_TOKEN"), ("key_variable", "OPENAI_API_KEY"),
     ("tokenizer", "x"), ("password_file", "/run/secrets/x"), ("keyboard", "qwerty"), ("kl", {"target": 6.0}),
     ("webhook", "${TEAM_WEBHOOK}"),
     ("token", ""), ("password", None), ("use_auth", True), ("key_column", "id"), ("monkey", "george")],
)  # fmt: skip
def test_what_only_sounds_like_one_is_shown(name, value):
    assert masked(value, name) == value


def test_a_number_can_be_a_password():
    assert masked(1234, "password") == MASK


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("postgresql://rlhf:hunter2@db:5432/x", "postgresql://***@db:5432/x"),
        ("https://hunter2@host/x?a=1&token=hunter2&b=2", "https://***@host/x?a=1&token=***&b=2"),
        ("host=db password='hunter 2' user=me", "host=db password=*** user=me"),
        ("https://hooks.slack.com/services/T0/B0/hunter2", "https://hooks.slack.com/***"),
        ("https://discord.com/api/webhooks/1/hunter2 changed", "https://discord.com/*** changed"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ***"),
        ("s3://team/rlhf", "s3://team/rlhf"),
        ("https://judge.example/v1?model=a", "https://judge.example/v1?model=a"),
        ("models:/chat-policy@champion", "models:/chat-policy@champion"),
        ("token=${HF_TOKEN}", "token=${HF_TOKEN}"),
    ],
)
def test_secrets_inside_texts(text, safe):
    assert masked(text, "url") == safe
    assert shown(text) == safe


def test_plugins_inside_plugins():
    use = Use(use="ensemble", members=[{"use": "service", "api_key": "hunter2", "max_tokens": 5}])
    assert options(use) == {"members": [{"use": "service", "api_key": MASK, "max_tokens": 5}]}


def test_shown_is_one_line_without_control_characters():
    assert shown("a\x1b[31mb\x1b]0;title\x07c\td\r\ne\x00f\u202eg\u2028h\ud800") == "abc d efg h"
