"""Texts as words for evaluators that compare them, in any script."""

from __future__ import annotations

import re

UNSPACED = "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""Scripts written without spaces between words: Chinese characters and Japanese syllables."""
WORD = re.compile(rf"{UNSPACED}|(?:(?!{UNSPACED})[^\W_])+")


class Words:
    """Tokenizer for rouge-score: runs of letters and digits; in scripts without spaces each character is a word.

    rouge-score's own drops everything but a-z and 0-9, so two Chinese texts would never overlap.
    """

    def __init__(self, *, stem: bool = False) -> None:
        self.stemmer = None
        if stem:
            from nltk.stem.porter import PorterStemmer

            self.stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        """The words of `text` in lower case."""
        words = WORD.findall(text.lower())
        if self.stemmer is None:
            return words
        # As rouge-score does: short words are left alone.
        return [self.stemmer.stem(word) if len(word) > 3 else word for word in words]
