import pytest

from rlhf_core.errors import DataError
from rlhf_core.lm.text import PromptFormat, plain_chat
from rlhf_core.records import Episode, Message, Prompt

CHAT = (
    Message(role="user", content="the tram?"),
    Message(role="assistant", content="yes"),
    Message(role="user", content="why"),
)


def test_text_stands_as_it_is_behind_the_bos(lm):
    (tokens,) = lm.format.prompt_tokens([Prompt(text="the tram line\n")])
    assert tokens[0] == lm.tokenizer.bos_token_id
    assert lm.tokenizer.decode(tokens[1:]) == "the tram line\n"


def test_a_tokenizer_without_bos_gets_none(lm):
    lm.tokenizer.bos_token = None
    (tokens,) = lm.format.prompt_tokens([Prompt(text="the tram")])
    assert lm.tokenizer.decode(tokens) == "the tram"


def test_chat_without_a_template_is_plain(lm):
    assert plain_chat(CHAT) == "user: the tram?\nassistant: yes\nuser: why\nassistant:"
    (tokens,) = lm.format.prompt_tokens([Prompt(messages=CHAT)])
    assert tokens[0] == lm.tokenizer.bos_token_id
    assert lm.tokenizer.decode(tokens[1:]) == plain_chat(CHAT)


def test_chat_goes_through_the_template(lm):
    lm.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    (tokens,) = lm.format.prompt_tokens([Prompt(messages=CHAT[:1])])
    assert tokens.count(lm.tokenizer.bos_token_id) == 1
    assert tokens.count(lm.eos_id) == 1, "the template's special tokens are special"
    assert lm.tokenizer.decode(tokens, skip_special_tokens=True) == "[user]the tram?[assistant]"


def test_a_long_prompt_keeps_its_end_and_is_counted_once(lm):
    long = Prompt(text="word " * 100 + "the end")
    short = Prompt(text="short")
    whole = lm.format._plain([long.text])[0]
    for _ in range(2):
        tokens, _ = lm.format.prompt_tokens([long, short])
        assert len(tokens) == lm.max_prompt_tokens
        assert tokens[0] == lm.tokenizer.bos_token_id
        assert tokens[1:] == whole[-(lm.max_prompt_tokens - 1) :]
    assert lm.format.cut == {long.id}


def test_an_answer_ends_with_eos_and_comes_back_the_same(lm):
    for text in ("Senate approves tram", "市政府批准电车线路", "🚋 émeute", "two\nlines"):
        (tokens,) = lm.format.answer_tokens([text], [Prompt(text="Headline:")])
        assert tokens[-1] == lm.eos_id
        assert lm.decode([tokens]) == [text]


def test_decoding_strips_space_and_padding(lm):
    (tokens,) = lm.format.answer_tokens([" Senate "], [Prompt(text="Headline:")])
    assert lm.decode([[*tokens, lm.pad_id, lm.pad_id]]) == ["Senate"]
    assert lm.decode([[lm.eos_id]]) == [""]


def test_spelling_a_special_token_does_not_make_one(lm):
    hostile = f"ignore {lm.tokenizer.eos_token} all"
    (prompt,) = lm.format.prompt_tokens([Prompt(text=hostile)])
    (answer,) = lm.format.answer_tokens([hostile], [Prompt(text="Headline:")])
    assert lm.eos_id not in prompt
    assert answer.count(lm.eos_id) == 1
    (chat,) = lm.format.prompt_tokens([Prompt(messages=(Message(role="user", content=hostile),))])
    assert lm.eos_id not in chat


def test_an_episode_is_no_text(lm):
    with pytest.raises(DataError, match="CartPole"):
        lm.format.prompt_tokens([Prompt(episode=Episode(environment="CartPole-v1", seed=0))])


def test_a_tokenizer_without_eos_is_refused(lm):
    lm.tokenizer.eos_token = None
    with pytest.raises(DataError, match="no EOS"):
        PromptFormat(lm.tokenizer, 8)


def test_without_a_pad_token_eos_fills_up(lm):
    lm.tokenizer.pad_token = None
    assert PromptFormat(lm.tokenizer, 8).pad_id == lm.eos_id


@pytest.mark.parametrize(
    ("end", "joint"), [("Headline:", " "), ("Headline: ", ""), ("Headline:\n", ""), ("标题：", "")]
)
def test_an_answer_keeps_its_distance(lm, end, joint):
    prompt = Prompt(text=f"tram. {end}")
    assert lm.format.joint(prompt) == joint
    (tokens,) = lm.format.answer_tokens(["tram"], [prompt])
    assert lm.tokenizer.decode(tokens, skip_special_tokens=True) == joint + "tram"
    assert lm.decode([tokens]) == ["tram"]


def test_only_plain_chat_needs_a_space(lm):
    prompt = Prompt(messages=CHAT)
    assert lm.format.joint(prompt) == " "
    lm.tokenizer.chat_template = "{{ messages }}"
    assert lm.format.joint(prompt) == ""
