"""Every form of file that `table` understands, written by the test itself."""

import gzip
import json
import statistics

import pytest
from pydantic import ValidationError

from rlhf_core.errors import DataError
from rlhf_core.feedback.convert import clicks_to_probability
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins.registry import files_digest
from rlhf_core.records import Comparison, Rating, Reaction
from rlhf_core.splits import split_of
from rlhf_plugins.data_sources.table import Table

AB_TEST = (
    "test,story,headline,clicks,shown\n"
    "t1,Cats sleep.,Why cats sleep,30,1000\n"
    "t2,Dogs bark.,Dogs bark,5,1000\n"
    "t1,Cats sleep.,Cats sleep a lot,10,1000\n"
    "t1,Cats sleep.,Why cats sleep,20,1000\n"
    "t1,Cats sleep.,Sleepy cats,40,1000\n"
    "t2,Dogs bark.,Dogs are loud,5,1000\n"
)
CLICKS = {"text": "headline", "clicks": "clicks", "impressions": "shown", "group": "test"}


def written(folder, name, content, encoding="utf-8"):
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def judged(answer):
    """(better text, worse text) of a comparison."""
    texts = {sample.id: sample.text for sample in answer.question.samples}
    first, second = texts[answer.feedback.first], texts[answer.feedback.second]
    return (first, second) if answer.feedback.choice == "first" else (second, first)


def test_text_title_score(tmp_path):
    path = written(tmp_path, "mine.csv", 'text,title,score\n"A, b",Good title,4.5\nC d,Bad title,1\n')
    table = Table(path=path, columns={"prompt": "text", "text": "title", "score": "score"})
    answers = list(table.feedback())
    assert [prompt.text for prompt in table.prompts()] == ["A, b", "C d"]
    assert [answer.question.samples[0].text for answer in answers] == ["Good title", "Bad title"]
    assert [(a.feedback.score, a.feedback.low, a.feedback.high) for a in answers] == [(4.5, 1, 5), (1, 1, 5)]
    assert {(a.feedback.annotator, a.feedback.source, a.question.samples[0].policy) for a in answers} == {
        ("mine", "data", "data")
    }
    assert Table.yields(table.config) == {Rating}
    assert list(table.demonstrations()) == []


@pytest.mark.parametrize(
    ("header", "columns"),
    [(False, {"text": 1, "score": 2}), (["title", "grade"], {"text": "title", "score": "grade"})],
)
def test_headerless_text_tab_score(tmp_path, header, columns):
    path = written(tmp_path, "scores.tsv", '"Quoted" start\t0.25\nPlain\t1\n')
    table = Table(path=path, header=header, columns=columns, score_low=0, score_high=1, criterion="pull")
    answers = list(table.feedback())
    assert [a.question.samples[0].text for a in answers] == ['"Quoted" start', "Plain"]
    assert [(a.feedback.score, a.feedback.criterion) for a in answers] == [(0.25, "pull"), (1.0, "pull")]
    assert {prompt.text for prompt in table.prompts()} == {"Write a headline."}


def test_rows_without_a_prompt_spread_over_the_splits_and_still_compare(tmp_path):
    lines = "".join(f"headline number {i}\t{i % 5 + 1}\n" for i in range(200))
    table = Table(path=written(tmp_path, "s.tsv", lines), header=False, columns={"text": 1, "score": 2})
    assert {split_of(prompt) for prompt in table.prompts()} == {"train", "validation", "test"}
    assert len(FeedbackSet.of(table.feedback()).split("train").pairs()) > 300


def test_equal_texts_without_a_prompt_are_on_one_side_of_the_split(tmp_path):
    path = written(tmp_path, "s.csv", "text,score\nsame,1\nother,2\nsame,5\n")
    first, _, again = Table(path=path, columns={"text": "text", "score": "score"}).feedback()
    assert first.question.id == again.question.id
    assert (first.feedback.annotator, again.feedback.annotator) == ("s", "s #2")


def test_a_named_annotator_who_answers_again_revises(tmp_path):
    path = written(tmp_path, "s.csv", "text,score,who\nsame,1,ann\nsame,5,ann\nsame,2,bob\nsame,3,\n")
    answers = list(Table(path=path, columns={"text": "text", "score": "score", "annotator": "who"}).feedback())
    assert [(a.feedback.annotator, a.feedback.revision) for a in answers] == [
        ("ann", 0), ("ann", 1), ("bob", 0), ("s", 0),
    ]  # fmt: skip


def test_chosen_and_rejected_with_prompt(tmp_path):
    lines = "".join(json.dumps({"q": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"}) + "\n" for i in range(60))
    columns = {"prompt": "q", "chosen": "chosen", "rejected": "rejected"}
    table = Table(path=written(tmp_path, "p.jsonl", lines), columns=columns)
    answers = list(table.feedback())
    assert [judged(a) for a in answers] == [(f"good {i}", f"bad {i}") for i in range(60)]
    shares = statistics.mean(a.feedback.choice == "first" for a in answers)
    assert 0.3 < shares < 0.7, "the place of a sample must not tell which is better"
    assert {a.feedback.strength for a in answers} == {1.0}
    assert Table.yields(table.config) == {Comparison}


def test_chosen_and_rejected_without_prompt(tmp_path):
    path = written(tmp_path, "p.csv", "chosen,rejected\na,b\nc,d\na,b\n")
    table = Table(path=path, columns={"chosen": "chosen", "rejected": "rejected"}, demonstrations="chosen")
    answers = list(table.feedback())
    assert [judged(a) for a in answers] == [("a", "b"), ("c", "d"), ("a", "b")]
    assert len({a.question.prompt.group for a in answers}) == 2
    assert [a.feedback.text for a in table.demonstrations()] == ["a", "c"]


def test_clicks_become_comparisons_within_the_group(tmp_path):
    template = "Story: {story}\nHeadline:"
    table = Table(path=written(tmp_path, "ab.csv", AB_TEST), columns=CLICKS, prompt_template=template)
    answers = list(table.feedback())
    by_pair = {judged(a): a.feedback for a in answers}
    assert len(answers) == 3 + 1
    assert Table.yields(table.config) == {Comparison}
    # "Why cats sleep" stands twice: 50 clicks of 2000.
    expected = 2 * clicks_to_probability(40, 1000, 50, 2000) - 1
    assert by_pair["Sleepy cats", "Why cats sleep"].strength == pytest.approx(expected)
    assert 0 < expected < 1
    assert set(by_pair) >= {("Sleepy cats", "Cats sleep a lot"), ("Why cats sleep", "Cats sleep a lot")}
    assert [a.feedback.choice for a in answers if a.question.prompt.group == "t2"] == ["tie"]
    assert {p.text for p in table.prompts()} == {
        "Story: Cats sleep.\nHeadline:", "Story: Dogs bark.\nHeadline:",
    }  # fmt: skip


def test_clicks_as_reactions(tmp_path):
    table = Table(path=written(tmp_path, "ab.csv", AB_TEST), columns=CLICKS, clicks_as="reactions")
    counts = {a.question.samples[0].text: (a.feedback.count, a.feedback.exposures) for a in table.feedback()}
    assert counts["Why cats sleep"] == (50, 2000)
    assert len(counts) == 5
    assert Table.yields(table.config) == {Reaction}


def test_min_exposures_and_max_pairs(tmp_path):
    path = written(tmp_path, "ab.csv", AB_TEST)
    enough = Table(path=path, columns=CLICKS, min_exposures=1500, clicks_as="reactions").feedback()
    assert [a.question.samples[0].text for a in enough] == ["Why cats sleep"]
    few = [list(Table(path=path, columns=CLICKS, max_pairs_per_group=1).feedback()) for _ in range(2)]
    assert len(few[0]) == 2
    assert few[0] == few[1]


def test_prompts_only(tmp_path):
    path = written(tmp_path, "prompts.csv", "prompt,split\nfirst,train\nsecond,dev\nfirst,train\nthird,test\n")
    table = Table(path=path, columns={"prompt": "prompt", "split": "split"})
    assert [(p.text, p.split) for p in table.prompts()] == [
        ("first", "train"), ("second", "validation"), ("third", "test"),
    ]  # fmt: skip
    assert list(table.feedback()) == list(table.demonstrations()) == []
    assert Table.yields(table.config) == frozenset()


def test_references_are_demonstrations_with_weight(tmp_path):
    path = written(tmp_path, "d.csv", "q,a,w\nq1,a1,2.5\nq2,a2,0\nq1,a1,1\nq1,a3,1\n")
    table = Table(path=path, columns={"prompt": "q", "reference": "a", "weight": "w"})
    demonstrations = list(table.demonstrations())
    assert [(d.question.prompt.text, d.feedback.text, d.feedback.weight) for d in demonstrations] == [
        ("q1", "a1", 2.5), ("q1", "a3", 1.0),
    ]  # fmt: skip
    assert len({(d.question.id, d.feedback.annotator) for d in demonstrations}) == 2
    assert next(table.prompts()).references == ("a1",)


def test_headlines_themselves_as_demonstrations(tmp_path):
    table = Table(path=written(tmp_path, "ab.csv", AB_TEST), columns=CLICKS, demonstrations="headline")
    assert [d.feedback.text for d in table.demonstrations()] == [
        "Why cats sleep", "Dogs bark", "Cats sleep a lot", "Sleepy cats", "Dogs are loud",
    ]  # fmt: skip


def test_messages_with_labels(tmp_path):
    chat = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]
    path = written(tmp_path, "kto.json", json.dumps([{"messages": chat, "label": True}]))
    table = Table(path=path, columns={"messages": "messages", "score": "label"}, score_low=0, score_high=1)
    (answer,) = table.feedback()
    assert [(m.role, m.content) for m in answer.question.prompt.messages] == [("user", "Hi")]
    assert (answer.question.samples[0].text, answer.feedback.score) == ("Hello!", 1.0)
    imitated = Table(path=path, columns={"messages": "messages"}, demonstrations="messages")
    assert [d.feedback.text for d in imitated.demonstrations()] == ["Hello!"]


ROWS = [{"q": "q1", "a": "a1"}, {"q": "q2", "a": "a2"}, {"q": "q3", "a": "a3"}]


def parquet(path):
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "other": 1} for row in ROWS]), sink)
    return sink.getvalue().to_pybytes()


CONTENTS = {
    "csv": "q,a\nq1,a1\n\nq2,a2\nq3,a3\n",
    "tsv": "q\ta\nq1\ta1\nq2\ta2\nq3\ta3\n",
    "jsonl": "\n".join(map(json.dumps, ROWS)),
    "json": json.dumps(ROWS, indent=1),
    "parquet": None,
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("format", CONTENTS)
def test_every_format_says_the_same(tmp_path, format, packed):
    content = CONTENTS[format] or parquet(tmp_path)
    path = written(tmp_path, f"rows.{format}{packed}", content)
    table = Table(path=path, columns={"prompt": "q", "reference": "a"})
    assert [(d.question.prompt.text, d.feedback.text) for d in table.demonstrations()] == [
        ("q1", "a1"), ("q2", "a2"), ("q3", "a3"),
    ]  # fmt: skip
    said = Table(path=path.rename(tmp_path / f"rows.x{packed}"), format=format, columns={"prompt": "q"}, limit=2)
    assert [p.text for p in said.prompts()] == ["q1", "q2"]


def test_rows_are_read_lazily(tmp_path):
    path = written(tmp_path, "long.jsonl", "".join(f'{{"q": "q{i}"}}\n' for i in range(1000)) + "broken")
    prompts = Table(path=path, columns={"prompt": "q"}).prompts()
    assert [next(prompts).text for _ in range(3)] == ["q0", "q1", "q2"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16"])
def test_chinese_files(tmp_path, encoding):
    path = written(tmp_path, "标题.csv", "文章,标题\n今天下雨。,下雨了\n", encoding)
    said = "utf-8" if encoding == "utf-8-sig" else encoding
    table = Table(path=path, encoding=said, columns={"reference": "标题"}, prompt_template="文章:{文章}\n标题:")
    (demonstration,) = table.demonstrations()
    assert demonstration.question.prompt.text == "文章:今天下雨。\n标题:"
    assert demonstration.feedback.text == "下雨了"


def test_wrong_encoding_is_named(tmp_path):
    path = written(tmp_path, "标题.csv", "文章,标题\n今天下雨。,下雨了\n", "gb18030")
    with pytest.raises(DataError, match="not valid utf-8 text") as error:
        list(Table(path=path, columns={"prompt": "文章"}).prompts())
    assert "gb18030" in error.value.remedy


def test_semicolons(tmp_path):
    path = written(tmp_path, "de.csv", 'q;score\n"a;b";3\n')
    columns = {"text": "q", "score": "score"}
    (answer,) = Table(path=path, delimiter=";", columns=columns).feedback()
    assert answer.question.samples[0].text == "a;b"
    with pytest.raises(DataError, match="only one column") as error:
        list(Table(path=path, columns=columns).feedback())
    assert "delimiter: ';'" in error.value.remedy


def test_template_strips_and_cuts(tmp_path):
    path = written(tmp_path, "h.csv", 'lede,h\n"<p>Tom &amp; <b>Jer</b>ry</p><p>run {away} fast</p>",x\n')
    table = Table(
        path=path,
        columns={"text": "h"},
        prompt_template="Story: {lede}\nHeadline:",
        strip_html=True,
        field_characters=20,
    )
    assert [p.text for p in table.prompts()] == ["Story: Tom & Jerry run\nHeadline:"]


def test_digest_is_of_the_content(tmp_path):
    one, same = written(tmp_path, "a.csv", "q\nx\n"), written(tmp_path, "b.csv", "q\nx\n")
    other = written(tmp_path, "c.csv", "q\ny\n")
    read = [Table.reads(Table.Config(path=path, columns={"prompt": "q"})) for path in (one, same, other)]
    assert read == [(one,), (same,), (other,)]
    assert files_digest(one) == files_digest(same) != files_digest(other)


def test_the_same_file_gives_the_same_bytes(tmp_path):
    path = written(tmp_path, "ab.csv", AB_TEST)
    runs = [[a.model_dump_json() for a in Table(path=path, columns=CLICKS).feedback()] for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"columns": {"chosen": "a"}}, "only make sense together"),
        ({"columns": {"score": "a"}}, "need `text`"),
        ({"columns": {"prompt": "a", "messages": "b"}}, "either"),
        ({"columns": {"prompt": "a"}, "prompt_template": "{b}"}, "prompt_template"),
        ({"columns": {"text": "a", "weight": "b"}}, "weigh"),
        ({"columns": {"text": "a", "clicks": "b", "impressions": "c"}}, "needs `group`"),
        ({"columns": {"title": "a"}}, "title"),
        ({"columns": {"text": "a"}, "score_low": 5, "score_high": 5}, "score_low"),
        ({"columns": {"text": "a"}, "encoding": "utf-9"}, "unknown encoding"),
        ({"columns": {"text": "a"}, "prompt_template": "{a.__class__}"}, "plain column names"),
    ],
)
def test_mappings_that_make_no_sense(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Table(path="x.csv", **options)
