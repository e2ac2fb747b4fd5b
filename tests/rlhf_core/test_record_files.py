from datetime import UTC, datetime

from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_core.records.files import (
    DEMONSTRATIONS_FILE,
    PROMPTS_FILE,
    demonstrations_of,
    prompts_of,
    read_records,
    write_records,
)

PROMPTS = [Prompt(text=f"Write about {word}.", split=split) for word, split in
           (("rain", "train"), ("雨", "test"), ("snow", "validation"), ("hail", "train"))]  # fmt: skip


def test_records_come_back_as_they_were(tmp_path):
    path = tmp_path / PROMPTS_FILE
    assert write_records(path, iter(PROMPTS)) == 4
    assert list(read_records(path, Prompt)) == PROMPTS
    assert path.read_text("utf-8").count("\n") == 4


def test_when_an_answer_was_given_is_left_out_so_that_equal_data_are_equal_files(tmp_path):
    question = Question(prompt=PROMPTS[0], samples=tuple(Sample(prompt_id=PROMPTS[0].id, text=t) for t in "ab"))
    written = []
    for day in (1, 2):
        feedback = question.compare([1, 0], annotator="ada", created_at=datetime(2026, 1, day, tzinfo=UTC))
        write_records(tmp_path / "answers.jsonl", [Answer(question=question, feedback=feedback)])
        written.append((tmp_path / "answers.jsonl").read_bytes())
        (back,) = read_records(tmp_path / "answers.jsonl", Answer)
        assert back.feedback.id == feedback.id
    assert written[0] == written[1]


def test_the_parts_of_a_data_artifact_by_split(tmp_path):
    write_records(tmp_path / PROMPTS_FILE, PROMPTS)
    questions = [Question(prompt=prompt) for prompt in PROMPTS]
    answers = [Answer(question=question, feedback=question.demonstrate("So it was.")) for question in questions]
    write_records(tmp_path / DEMONSTRATIONS_FILE, answers)
    assert prompts_of(tmp_path, "train") == [PROMPTS[0], PROMPTS[3]]
    assert prompts_of(tmp_path, "test", "validation") == [PROMPTS[1], PROMPTS[2]]
    assert [answer.question.prompt for answer in demonstrations_of(tmp_path, "test")] == [PROMPTS[1]]
