"""Questions of every kind, some of them hostile."""

from rlhf_core.feedback.forms import Criterion, Form
from rlhf_core.records import Message, Prompt, Question, Sample

GUIDELINES = (
    "Prefer the headline that tells a reader what happened.\n\n"
    "Shorter wins where both are clear. A headline that promises what the article does not hold is bad, however lively."
)
PREFERENCE = Form(title="", guidelines=GUIDELINES)
RATING = Form(
    kind="rating",
    guidelines=GUIDELINES,
    criteria=(Criterion(name="clear", description="says what happened"), Criterion(name="lively")),
)
WRITING = Form(kind="writing", guidelines=GUIDELINES)
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    '<a href="javascript:window.hacked=3">click</a></p></article><style>*{display:none}</style>'
    '<iframe src="javascript:top.hacked=4"></iframe>{{ 7 * 7 }} ]]> \u202e <b>bold</b>'
)
ARTICLES = (
    (
        "The old bridge over the Linn reopened on Monday after two years of repairs. The town paid 4.2 million for new "
        "cables and a wider path for bicycles.",
        "Linn bridge reopens after two years, with a wider bicycle path",
        "You won't believe what happened to this old bridge",
        "Bridge opens again",
        "Town pays 4.2 million",
    ),
    (
        "两家医院本周宣布合并，合并后的新医院将拥有一千二百张病床，并保留全部急诊服务。",
        "两家医院合并，保留全部急诊服务",
        "震惊！医院居然这样做",
        "新医院有一千二百张病床",
        "医院本周宣布消息",
    ),
    (
        "A tuba that was stolen from the town choir in 1987 came back by post on Thursday, polished, with a letter of "
        "apology and a train ticket.",
        "Stolen tuba comes back by post after decades, polished",
        "Tuba thief says sorry in a letter to the town choir",
        "A tuba",
        "Choir gets post",
    ),
)


def question(number, samples, wanted=1):
    article, *headlines = ARTICLES[number % len(ARTICLES)]
    text = f"Write a headline for this article.\n\n{article}"
    if number >= len(ARTICLES):
        text += f"\n\n(No. {number})"
    prompt = Prompt(text=text, facts={"judge": "SECRET-FACT"})
    found = [Sample(prompt_id=prompt.id, text=headline, policy="SECRET-POLICY", round=1) for headline in headlines]
    return Question(prompt=prompt, samples=tuple(found[:samples]), reason="SECRET-REASON", wanted=wanted)


def hostile(samples=2):
    prompt = Prompt(messages=(Message(role="user", content=f"Please {HOSTILE}"),))
    found = [Sample(prompt_id=prompt.id, text=f"{number} {HOSTILE}") for number in range(samples)]
    return Question(prompt=prompt, samples=tuple(found))


def post_mixed(queue, n=30, wanted=1):
    """`n` questions: pairs, rankings of three and four, ratings, writing; ids by form."""
    for number in range(n):
        form, samples = [(PREFERENCE, 2), (PREFERENCE, 2), (PREFERENCE, 4), (RATING, 2), (WRITING, 0)][number % 5]
        queue.post(form, [question(number, samples, wanted)], campaign="mixed", round=1)
