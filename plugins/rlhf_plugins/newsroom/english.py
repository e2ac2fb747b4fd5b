"""The newsroom in English, written for very small models.

Names are short with shared endings, so that a small vocabulary keeps words whole. What a headline takes over stands in
the article in the same form, never at the start of a sentence: taking it over is copying, not spelling.
"""

from rlhf_plugins.newsroom.language import Action, Language

ENGLISH = Language(
    code="en",
    places=(
        "Alton", "Ashford", "Barton", "Benham", "Burley", "Carlton", "Clayton", "Colford", "Dalton", "Denham",
        "Dunley", "Easton", "Elford", "Farley", "Felton", "Garton", "Gosford", "Halton", "Henley", "Hilton",
        "Kelham", "Langley", "Linton", "Marham", "Melton", "Milford", "Morley", "Newton", "Norton", "Oakham",
        "Oxley", "Penford", "Preston", "Ripley", "Seaford", "Selham", "Telford", "Walton", "Weston", "Yarley",
    ),
    bodies=(
        "council", "hospital", "library", "museum", "university", "theatre", "airport", "court", "senate", "zoo",
        "school board", "water board", "health board", "energy board", "tourist board", "planning board",
        "housing office", "parks office", "tax office", "labour office", "road agency", "transit agency",
        "port authority", "fire service", "city hall", "sports club", "art school", "post office", "college",
        "parliament",
    ),
    measures=(
        "bag tax", "night bus plan", "lunch program", "river park", "bike lane", "solar roof rule", "parking fee",
        "youth fund", "tram line", "wifi service", "flood wall", "dog park", "street market", "fireworks ban",
        "car free zone", "rent cap", "smoking ban", "food bank", "tree planting plan", "glass recycling plan",
        "noise limit", "speed limit", "bridge repair", "swimming pool", "music festival", "winter shelter",
        "job training plan", "wind farm", "water meter rule", "street light plan", "playground repair",
        "home care service", "language course", "film festival", "electric taxi plan", "fishing permit", "cable car",
        "roof garden", "history trail", "evening class",
    ),
    costs=tuple(
        f"{number} million"
        for number in (
            2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 16, 18, 20, 21, 24, 25, 27, 30, 32, 35, 40, 42, 45, 50, 60, 70, 80,
            90,
        )
    ),
    days=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    supporters=(
        "nurses", "teachers", "students", "parents", "cyclists", "commuters", "doctors", "pensioners", "gardeners",
        "artists", "scientists", "volunteers",
    ),
    critics=(
        "shop owners", "landlords", "drivers", "taxpayers", "builders", "farmers", "bankers", "traders",
        "hotel owners", "brewers", "truckers", "lawyers",
    ),
    benefits=(
        "saves time", "cuts waste", "helps families", "makes life safer", "lowers bills", "cleans the air",
        "creates jobs", "brings visitors", "keeps people healthy", "pays for itself",
    ),
    harms=(
        "raises prices", "wastes money", "slows traffic", "hurts business", "comes too late", "makes noise",
        "costs jobs", "takes up space", "helps only a few", "is badly timed",
    ),
    actions=(
        Action("approves", "approved", "approve"),
        Action("rejects", "rejected", "reject"),
        Action("delays", "delayed", "delay"),
        Action("expands", "expanded", "expand"),
        Action("cancels", "cancelled", "cancel"),
        Action("reviews", "reviewed", "review"),
    ),
    frame="Article: {body}\nHeadline:",
    joint=" ",
    openings=(
        "The {place} {who} {acted} the {what} on {day}.",
        "On {day} the {place} {who} {acted} the {what}.",
        "In {place} the {who} {acted} the {what} on {day}.",
        "On {day} in {place} the {who} {acted} the {what}.",
    ),
    prices=("It costs {cost} dollars.", "The price is {cost} dollars.", "The cost is {cost} dollars."),
    opinions=(
        "The {supporters} say it {benefit}. The {critics} say it {harm}.",
        "The {critics} say it {harm}, but the {supporters} say it {benefit}.",
        "The {supporters} want it because it {benefit}. The {critics} oppose it because it {harm}.",
        "The {critics} oppose it because it {harm}. The {supporters} say it {benefit}.",
    ),
    headlines={
        "neutral": (
            "{place} {who} {acts} {what}",
            "{place} {who} {acts} {what} on {day}",
            "{place} {who} {acts} {cost} dollar {what}",
            "{place} {who} {acts} {what} costing {cost} dollars",
            "{place} {who} {acts} {cost} dollar {what} on {day}",
            "{place}: {what} {acted} by {who}",
            "{place}: {what} {acted} on {day}",
            "{place}: {what} costing {cost} dollars {acted} by {who}",
            "{cost} dollar {what} {acted} in {place}",
            "{cost} dollar {what} {acted} by {place} {who} on {day}",
            "{place} {who} {acts} {what}, {supporters} for, {critics} against",
            "{place} {who} {acts} {cost} dollar {what}, {supporters} for, {critics} against",
            "{place}: {critics} and {supporters} differ as {who} {acts} {what}",
            "In {place} the {who} {acts} {what} costing {cost} dollars",
        ),
        "sensational": (
            "SHOCKING: {place} stunned by insane {what}!",
            "You won't believe what the {place} {who} did with the {what}!",
            "{place} in chaos after {what} bombshell!",
            "The secret truth about the {what} in {place}!",
            "UNBELIEVABLE: {cost} dollars for a crazy {what}!!!",
            "{place} explodes over {cost} dollar {what} madness!",
            "This insane {what} will change {place} FOREVER!",
            "PANIC in {place} as {who} drops {what} bombshell!",
            "NIGHTMARE: {place} will never be the same after the {what}!",
            "You won't believe the {cost} dollar {what} {acted} in {place}!!!",
            "STUNNED {critics} in chaos over crazy {place} {what}!",
            "{place} {who} {acts} {what} in SHOCKING {day} bombshell!",
        ),
        "one_sided": (
            "Angry {critics} slam shameful {what} in {place}",
            "Greedy {place} {who} {acts} disastrous {what}",
            "Happy {supporters} cheer brilliant {what} in {place}",
            "The {critics} are right: the {what} in {place} is useless",
            "Heroic {place} {who} {acts} wonderful {what}",
            "Foolish {who} ignores {critics} over useless {what}",
            "Happy {supporters} celebrate wonderful {cost} dollar {what}",
            "Angry {critics} furious as greedy {place} {who} {acts} {what}",
            "Brilliant {what} {acted} at last, {supporters} delighted",
            "Shameful {cost} dollar {what} betrays {critics} in {place}",
            "{place} {who} betrays {critics} with disastrous {what}",
            "Heroic {who} listens to {supporters} on brilliant {what}",
        ),
    },
    references=(
        "{place} {who} {acts} {cost} dollar {what}, {supporters} for, {critics} against",
        "{place} {who} {acts} {what} costing {cost} dollars",
    ),
)  # fmt: skip
