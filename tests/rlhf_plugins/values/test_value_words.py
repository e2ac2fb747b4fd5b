from rlhf_plugins.values.words import Phrases, word_count, words


def test_words_are_lower_case_and_chinese_goes_by_characters():
    assert words("You won’t BELIEVE it!") == ("you", "won't", "believe", "it", "!")
    assert words("河口批准1200万元。") == ("河", "口", "批", "准", "1200", "万", "元", "。")
    assert words("") == words("  \n") == ()


def test_word_count_leaves_out_punctuation_and_halves_chinese_characters():
    assert word_count("One, two: three!") == 3
    assert word_count("河口批准，12") == 3.0
    assert word_count("!!!") == 0


def test_phrases_match_whole_words_longest_first_and_never_overlap():
    phrases = Phrases({"park": 1, "dog park": 2, "park plan": 3})
    assert [(hit.start, hit.end, hit.meaning) for hit in phrases.find(words("Dog park plan, parks, PARK"))] == [
        (0, 2, 2),
        (6, 7, 1),
    ]
