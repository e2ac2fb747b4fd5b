"""Answers to store."""

from rlhf_core.records import Answer, Demonstration, Episode, Prompt, Question, Reaction, Sample, Trajectory


def made(n, annotators=("ann", "bob"), start=0):
    """`n` questions, each answered with a comparison by every annotator."""
    answers = []
    for number in range(start, start + n):
        prompt = Prompt(text=f"prompt {number} 你好")
        samples = tuple(Sample(prompt_id=prompt.id, text=f"answer {letter} of {number}") for letter in "ab")
        question = Question(prompt=prompt, samples=samples, reason=f'because "{number}"')
        for place, annotator in enumerate(annotators):
            scores = (1.0, 0.0) if (number + place) % 2 else (0.0, 1.0)
            answers.append(Answer(question=question, feedback=question.compare(scores, annotator=annotator)))
    return answers


def one_of_each_kind():
    """An answer of every kind, in both worlds."""
    prompt = Prompt(text="Write.", group="g", references=("good",), facts={"topic": ["a", 1, None]})
    samples = tuple(Sample(prompt_id=prompt.id, text=text, tokens=(1, 2), logprobs=(-0.5, -1.0)) for text in "abc")
    two, three, none = (Question(prompt=prompt, samples=samples[:k]) for k in (2, 3, 0))
    start = Prompt(episode=Episode(environment="CartPole-v1", seed=3))
    steps = Trajectory(observations=((0.1, 0.2), (0.3, 0.4)), actions=((0.0,), (1.0,)), environment_rewards=(1.0, 1.0))
    segments = Question(
        prompt=start,
        samples=(
            Sample(prompt_id=start.id, trajectory=steps, policy="p", round=2),
            Sample(prompt_id=start.id, trajectory=steps.model_copy(update={"actions": ((1.0,), (1.0,))})),
        ),
    )
    reaction = Reaction(question_id=two.id, sample=samples[0].id, count=3, exposures=100, source="data")
    pairs = [
        (two, two.compare([1, 0], annotator="é\u2028", source="person", comment="\x00'--", reasons={"clear": 0.5})),
        (three, three.rank([1, 1, 0], annotator="r")),
        (two, two.rate(0, 4, annotator="r")),
        (two, two.rate(1, 2, annotator="r")),
        (none, none.demonstrate("a good one", annotator="expert", weight=2.0)),
        (segments, Demonstration(question_id=segments.id, trajectory=steps, annotator="expert")),
        (two, reaction),
        (three, three.skip("unclear", annotator="s")),
        (segments, segments.compare([0, 1], annotator="r")),
    ]
    return [Answer(question=question, feedback=feedback) for question, feedback in pairs]
