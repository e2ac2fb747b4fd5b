"""Broken rows, broken files: what is said, and that the rest is offered."""

import gzip
import json

import pytest

from rlhf_core.errors import DataError
from rlhf_core.run import Run
from rlhf_plugins.data_sources.table import Table

COLUMNS = {"prompt": "q", "text": "a", "score": "s"}


class Notes(Run):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def refusal(iterable):
    with pytest.raises(DataError) as caught:
        list(iterable)
    return caught.value


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (b"q2,a2", "2 columns where there should be 3"),
        (b"q2,a2,3,4", "4 columns where there should be 3"),
        (b"q2,a2,high", "`s` is not a number: 'high'"),
        (b"q2,a2,", "empty `s`"),
        (b"q2,a2,nan", "`s` is not a finite number: 'nan'"),
        (b"q2,a2,7", "`s` 7 is outside its scale 1 to 5"),
        (b" ,a2,3", "empty prompt (`q`)"),
        (b"q2,  ,3", "empty `a`"),
        (b"q2,\xff\xfe,3", "not valid utf-8 text"),
        (b'q2,"a"2,3', "quotes or cells that do not end where they should"),
    ],
)
def test_a_broken_csv_row(tmp_path, row, complaint):
    path = tmp_path / "t.csv"
    path.write_bytes(b'q,a,s\n"q1\nsecond line",a1,3\n' + row + b"\nq3,a3,5\n")
    for stream in ("prompts", "feedback"):
        error = refusal(getattr(Table(path=path, columns=COLUMNS), stream)())
        assert error.where == str(path)
        assert f"line 4: {complaint}" in error.what
        assert "1 row cannot be used, 2 can" in error.what
        assert "broken_rows: skip" in error.remedy
    run = Notes()
    table = Table(path=path, columns=COLUMNS, broken_rows="skip", run=run)
    assert [p.text for p in table.prompts()] == ["q1\nsecond line", "q3"]
    assert [a.feedback.score for a in table.feedback()] == [3, 5]
    assert len(run.notes) == 1
    assert "1 of 3 rows left out" in run.notes[0]
    assert f"line 4: {complaint}" in run.notes[0]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"q": "q2", "a": "a2", "s": 3', "not JSON"),
        (b'["q2", "a2", 3]', "not a JSON object"),
        (b'{"q": "q2", "a": "a2"}', "empty `s`"),
        (b'{"q": {"x": 1}, "a": "a2", "s": 3}', "without a known role"),
        (b'{"q": "q2", "a": ["x"], "s": 3}', "not a message"),
        (b'{"q": "q2", "a": "\\ud800", "s": 3}', "half of a surrogate pair"),
        (b'{"q": "q2", "a": "a2", "s": 1e999}', "not a finite number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"q": "\xff", "a": "a2", "s": 3}', "not valid utf-8"),
    ],
)
def test_a_broken_json_line(tmp_path, line, complaint):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"q": "q1", "a": "a1", "s": 3}\n\n' + line + b'\n{"q": "q3", "a": "a3", "s": 5}\n')
    error = refusal(Table(path=path, columns=COLUMNS).feedback())
    assert "line 3: " in error.what
    assert complaint in error.what
    skipping = Table(path=path, columns=COLUMNS, broken_rows="skip")
    assert [a.feedback.score for a in skipping.feedback()] == [3, 5]


@pytest.mark.parametrize(
    ("clicks", "impressions", "complaint"),
    [
        ("11", "10", "11 `c` out of only 10 `i`"),
        ("-1", "10", "`c` is not a count: -1"),
        ("1.5", "10", "`c` is not a count: 1.5"),
        ("1", "", "empty `i`"),
    ],
)
def test_impossible_clicks(tmp_path, clicks, impressions, complaint):
    path = tmp_path / "t.tsv"
    path.write_text(f"g\th\tc\ti\nt\tx\t1\t10\nt\ty\t{clicks}\t{impressions}\nt\tz\t1.0\t10\n", encoding="utf-8")
    columns = {"group": "g", "text": "h", "clicks": "c", "impressions": "i"}
    assert f"line 3: {complaint}" in refusal(Table(path=path, columns=columns).feedback()).what
    assert len(list(Table(path=path, columns=columns, broken_rows="skip").feedback())) == 1


@pytest.mark.parametrize(
    ("chosen", "rejected", "complaint"),
    [
        ("\n\nHuman: hi\n\nAssistant: a", "plain", "`no` is not a dialogue"),
        ("\n\nHuman: hi\n\nAssistant: a", "\n\nHuman: ho\n\nAssistant: b", "differ before the last answer"),
        ("\n\nHuman: hi\n\nAssistant: a", "\n\nHuman: hi\n\nAssistant: a", "the same text"),
        ("\n\nHuman: hi\n\nAssistant: a", "\n\nHuman: hi", "does not end with an answer"),
        ("\n\nHuman: hi\n\nAssistant:", "\n\nHuman: hi\n\nAssistant: b", "empty turn of the assistant"),
    ],
)
def test_malformed_dialogues(tmp_path, chosen, rejected, complaint):
    fine = {"yes": "\n\nHuman: q\n\nAssistant: good", "no": "\n\nHuman: q\n\nAssistant: bad"}
    path = tmp_path / "t.json"
    path.write_text(json.dumps([fine, {"yes": chosen, "no": rejected}]), encoding="utf-8")
    error = refusal(Table(path=path, columns={"chosen": "yes", "rejected": "no"}).feedback())
    assert "record 2: " in error.what
    assert complaint in error.what


def test_weights_and_splits(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("q,a,w,s\nq1,a1,-1,train\nq2,a2,1,holdout\nq3,a3,1,test\n", encoding="utf-8")
    columns = {"prompt": "q", "reference": "a", "weight": "w", "split": "s"}
    error = refusal(Table(path=path, columns=columns).demonstrations())
    assert "line 2: `w` is negative" in error.what
    assert "line 3: `s` is not a split" in error.what


def test_many_problems_are_counted_and_the_first_listed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("q,a,s\n" + "q,a,x\n" * 20 + "q,a,3\n" * 30, encoding="utf-8")
    error = refusal(Table(path=path, columns=COLUMNS).feedback())
    assert "20 rows cannot be used, 30 can" in error.what
    assert error.what.count("is not a number") == 5
    assert "… and 15 more" in error.what


@pytest.mark.parametrize("broken_rows", ["stop", "skip"])
def test_nothing_usable_is_always_an_error(tmp_path, broken_rows):
    path = tmp_path / "t.csv"
    path.write_text("q,a,s\nq,a,x\n", encoding="utf-8")
    assert "none of the 1 rows" in refusal(Table(path=path, columns=COLUMNS, broken_rows=broken_rows).feedback()).what


def test_missing_file_and_column(tmp_path):
    (tmp_path / "headlines.csv").write_text("text,titel\na,b\n", encoding="utf-8")
    error = refusal(Table(path=tmp_path / "headline.csv", columns={"text": "text"}).prompts())
    assert "headlines.csv" in error.remedy
    error = refusal(Table(path=tmp_path / "headlines.csv", columns={"text": "title"}).prompts())
    assert "no column `title`" in error.what
    assert "Did you mean `titel`?" in error.remedy
    assert "text, titel" in error.remedy
    assert "is a folder" in refusal(Table(path=tmp_path, format="csv", columns={"text": "a"}).prompts()).what


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json", "t.parquet"])
def test_missing_column_in_every_format(tmp_path, name):
    import pandas

    frame = pandas.DataFrame({"text": ["a"], "titel": ["b"]})
    path = tmp_path / name
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".json": lambda: frame.to_json(path, orient="records"),
        ".parquet": lambda: frame.to_parquet(path),
    }
    writers[path.suffix]()
    assert "Did you mean `titel`?" in refusal(Table(path=path, columns={"text": "title"}).prompts()).remedy


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("t.csv", b"", "no rows"),
        ("t.csv", b"a,b\n", "no rows"),
        ("t.csv", b"a,a\n1,2\n", "two columns are called `a`"),
        ("t.json", b"[]", "no rows"),
        ("t.json", b'{"a": 1}', "not a list of objects"),
        ("t.json", b'{"a": 1}\n{"a": 2}\n', "not JSON: Extra data"),
        ("t.json", b'[{"a": "\xff"}]', "not valid utf-8"),
        ("t.parquet", b"PAR1 no, it is not", "not a readable Parquet file"),
        ("t.csv.gz", gzip.compress(b"a\n" + b"1\n" * 9999, mtime=0)[:30], "gzip file is damaged"),
        ("t.csv.gz", b"a\n1\n", "gzip file is damaged"),
        ("t.xlsx", b"PK", "does not say its format"),
    ],
)
def test_damaged_files(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal(Table(path=path, columns={"text": "a"}).prompts())
    assert complaint in error.what
    assert str(path) in error.where


def test_an_unclosed_quote_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('q,a,s\nq1,a1,3\n"q2,a2,3\nq3,a3,3\n', encoding="utf-8")
    assert "line 3: quotes" in refusal(Table(path=path, columns=COLUMNS).feedback()).what
