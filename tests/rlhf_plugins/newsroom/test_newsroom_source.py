"""The data source: what it yields, how it is mixed, and that it is the same everywhere."""

import itertools
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from pydantic import ValidationError

from rlhf_core.records import content_id
from rlhf_plugins.data_sources.newsroom import Newsroom
from rlhf_plugins.newsroom.languages import languages


@pytest.fixture(scope="module", params=["en", "zh"])
def source(request):
    return Newsroom(prompts=400, demonstrations=1000, language=request.param)


def test_prompts_are_as_many_as_asked_for_and_all_different(source):
    prompts = list(source.prompts())
    assert len(prompts) == len({prompt.id for prompt in prompts}) == 400


def test_an_article_states_its_facts(source):
    for prompt in itertools.islice(source.prompts(), 100):
        facts = dict(prompt.facts)
        language = languages()[facts.pop("language")]
        past = {action.present: action.past for action in language.actions}
        facts["action"] = past[facts["action"]]
        for value in facts.values():
            assert value.lower() in prompt.text.lower()


def test_prompts_end_where_the_headline_begins(source):
    last = {prompt.text.splitlines()[-1] for prompt in source.prompts()}
    assert last <= {"Headline:", "标题："}


def test_references_are_good_headlines(source):
    for prompt in itertools.islice(source.prompts(), 50):
        assert len(prompt.references) == 2
        assert all(prompt.facts["what"] in reference for reference in prompt.references)


def test_more_prompts_begin_with_the_same_ones():
    few = [prompt.id for prompt in Newsroom(prompts=20).prompts()]
    many = [prompt.id for prompt in Newsroom(prompts=60).prompts()]
    assert many[:20] == few


def test_another_seed_makes_other_articles():
    one = {prompt.id for prompt in Newsroom(prompts=50, seed=1).prompts()}
    two = {prompt.id for prompt in Newsroom(prompts=50, seed=2).prompts()}
    assert not one & two


def test_demonstrations_are_spread_evenly_over_the_articles(source):
    demonstrations = list(source.demonstrations())
    per_article = Counter(answer.question.prompt.id for answer in demonstrations)
    assert len(demonstrations) == 1000
    assert set(per_article.values()) == {2, 3}
    assert len(per_article) == 400


def test_one_archive_answers_a_question_once(source):
    demonstrations = list(source.demonstrations())
    pairs = {(answer.question.id, answer.feedback.annotator) for answer in demonstrations}
    assert len(pairs) == len(demonstrations)
    assert {answer.feedback.annotator for answer in demonstrations} == {
        "newsroom_archive",
        "newsroom_archive-2",
        "newsroom_archive-3",
    }
    assert {answer.feedback.source for answer in demonstrations} == {"data"}


def test_fewer_demonstrations_than_articles_and_none_at_all():
    assert len(list(Newsroom(prompts=30, demonstrations=7).demonstrations())) == 7
    assert list(Newsroom(prompts=30, demonstrations=0).demonstrations()) == []


def test_styles_occur_in_their_shares():
    source = Newsroom(prompts=1000, demonstrations=2000)
    styles = Counter(answer.feedback.comment for answer in source.demonstrations())
    for style, share in {"neutral": 0.2, "sensational": 0.35, "one_sided": 0.25, "false": 0.2}.items():
        # Four standard deviations of a binomial with n = 2000.
        assert abs(styles[style] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_a_style_left_out_does_not_occur():
    source = Newsroom(prompts=50, demonstrations=100, styles={"neutral": 1, "false": 1})
    assert {answer.feedback.comment for answer in source.demonstrations()} == {"neutral", "false"}


@pytest.mark.parametrize(
    "styles", [{"neutral": -1.0, "false": 2.0}, {"neutral": 0.0}, {}, {"gossip": 1.0}, {"neutral": float("nan")}]
)
def test_styles_that_are_no_mixture_are_refused(styles):
    with pytest.raises(ValidationError):
        Newsroom(styles=styles)


def test_both_languages():
    codes = Counter(prompt.facts["language"] for prompt in Newsroom(prompts=200, language="both").prompts())
    assert set(codes) == {"en", "zh"}
    assert min(codes.values()) > 60


def test_the_same_in_another_process():
    script = (
        "import json; from rlhf_plugins.data_sources.newsroom import Newsroom;"
        "s = Newsroom(prompts=40, language='both');"
        "print(json.dumps([[p.id, *p.references] for p in s.prompts()] + [a.id for a in s.demonstrations()]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    )
    source = Newsroom(prompts=40, language="both")
    here = [[prompt.id, *prompt.references] for prompt in source.prompts()]
    here += [answer.id for answer in source.demonstrations()]
    assert content_id(json.loads(output.stdout)) == content_id(here)


def test_a_small_tokenizer_keeps_english_words_whole_and_texts_short():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    source = Newsroom(prompts=1000, demonstrations=2000)
    prompts = [prompt.text for prompt in source.prompts()]
    headlines = [" " + answer.feedback.text for answer in source.demonstrations()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1536, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(prompts + headlines, trainer)
    prompt_lengths = sorted(len(tokenizer.encode(text).ids) for text in prompts)
    headline_lengths = sorted(len(tokenizer.encode(text).ids) for text in headlines)
    assert prompt_lengths[0] >= 30
    assert prompt_lengths[-1] <= 60
    assert headline_lengths[len(headlines) // 20] >= 6
    assert headline_lengths[-1] <= 20
