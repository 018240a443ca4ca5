"""Which kinds of constraints cannot hold together, whatever their parameters, or make no sense together.

In: two ids. Out: yes or no. The table was found by search (no text that meets both for any of the parameters drawn) and by judgement
(the same thing asked twice; English keywords in a text that may be in Arabic only). The tests find a text for every pair that is not in it.

>>> conflict("change_case:english_capital", "change_case:english_lowercase")
True
"""

from __future__ import annotations

ALONE = frozenset(
    [  # the whole answer is given by these: nothing else can be asked of it
        "copy:copy",
        "copy:copying_simple",
        "copy:copying_multiple",
        "new:copy_span_idx",
        "detectable_format:constrained_response",
    ]
)
_TABLE = {
    "language:response_language": (
        "change_case:capital_word_frequency change_case:english_capital change_case:english_lowercase combination:repeat_prompt "
        "copy:repeat_phrase count:count_increment_word count:counting_composition count:lowercase_counting "
        "detectable_content:number_placeholders detectable_content:postscript detectable_format:multiple_sections "
        "first_word:first_word_answer first_word:first_word_sent format:headings keywords:exclude_word_harder keywords:existence "
        "keywords:forbidden_words keywords:frequency keywords:keyword_specific_position keywords:letter_frequency "
        "keywords:no_adjacent_consecutive keywords:palindrome keywords:start_end keywords:word_count_different_numbers "
        "keywords:word_once last_word:last_word_answer last_word:last_word_sent length_constraints:nth_paragraph_first_word "
        "length_constraints:number_sentences length_constraints:number_words letters:letter_counting letters:letter_counting2 "
        "letters:lipogram lines:acrostic sentences:rising_length startend:end_checker words:alliteration words:longest"
    ),
    "count:counting_composition": (
        "combination:repeat_prompt combination:two_responses copy:repeat_phrase count:count_increment_word count:count_unique "
        "detectable_content:number_placeholders detectable_content:postscript detectable_format:bigram_wrapping "
        "detectable_format:json_format detectable_format:multiple_sections detectable_format:number_bullet_lists "
        "detectable_format:number_highlighted_sections detectable_format:sentence_hyphens detectable_format:square_brackets "
        "detectable_format:title first_word:first_word_answer first_word:first_word_sent format:headings format:table "
        "keywords:existence keywords:palindrome keywords:start_end last_word:last_word_answer last_word:last_word_sent "
        "length_constraints:nth_paragraph_first_word length_constraints:number_paragraphs length_constraints:number_sentences "
        "length_constraints:number_words lines:acrostic lists:numbered numbers:total paragraphs:paragraphs paragraphs:paragraphs2 "
        "punctuation:parentheses punctuation:questions sentences:rising_length startend:end_checker"
    ),
    "detectable_format:square_brackets": (
        "combination:repeat_prompt combination:two_responses detectable_content:postscript detectable_format:bigram_wrapping "
        "detectable_format:json_format detectable_format:multiple_sections detectable_format:number_bullet_lists "
        "detectable_format:number_highlighted_sections detectable_format:sentence_hyphens detectable_format:title emoji:count "
        "format:headings format:table keywords:start_end length_constraints:nth_paragraph_first_word "
        "length_constraints:number_paragraphs lines:acrostic lists:numbered paragraphs:paragraphs paragraphs:paragraphs2 "
        "punctuation:parentheses punctuation:questions sentences:rising_length startend:end_checker startend:quotation"
    ),
    "lines:acrostic": (
        "combination:repeat_prompt combination:two_responses copy:repeat_phrase count:count_increment_word "
        "detectable_content:postscript detectable_format:bigram_wrapping detectable_format:json_format "
        "detectable_format:multiple_sections detectable_format:number_bullet_lists detectable_format:number_highlighted_sections "
        "detectable_format:sentence_hyphens detectable_format:title first_word:first_word_answer first_word:first_word_sent "
        "format:headings format:table keywords:existence keywords:palindrome keywords:word_once lists:numbered "
        "paragraphs:paragraphs paragraphs:paragraphs2 sentences:rising_length"
    ),
    "detectable_format:json_format": (
        "combination:repeat_prompt detectable_content:postscript detectable_format:bigram_wrapping "
        "detectable_format:multiple_sections detectable_format:number_bullet_lists first_word:first_word_answer "
        "first_word:first_word_sent format:headings format:table keywords:start_end last_word:last_word_answer "
        "last_word:last_word_sent length_constraints:nth_paragraph_first_word length_constraints:number_paragraphs lists:numbered "
        "numbers:total paragraphs:paragraphs paragraphs:paragraphs2 punctuation:no_comma sentences:rising_length "
        "startend:end_checker startend:quotation"
    ),
    "detectable_format:bigram_wrapping": (
        "combination:repeat_prompt combination:two_responses detectable_content:number_placeholders detectable_content:postscript "
        "detectable_format:multiple_sections detectable_format:number_bullet_lists detectable_format:number_highlighted_sections "
        "detectable_format:sentence_hyphens format:headings format:table keywords:start_end "
        "length_constraints:nth_paragraph_first_word length_constraints:number_paragraphs lists:numbered paragraphs:paragraphs "
        "paragraphs:paragraphs2 punctuation:parentheses punctuation:questions sentences:rising_length startend:end_checker"
    ),
    "sentences:rising_length": (
        "combination:repeat_prompt copy:repeat_phrase count:count_increment_word detectable_format:number_highlighted_sections "
        "detectable_format:title format:headings keywords:existence keywords:palindrome keywords:start_end keywords:word_once "
        "last_word:last_word_answer length_constraints:nth_paragraph_first_word punctuation:parentheses punctuation:questions "
        "startend:end_checker"
    ),
    "detectable_format:sentence_hyphens": (
        "combination:two_responses detectable_content:postscript detectable_format:multiple_sections "
        "detectable_format:number_bullet_lists detectable_format:title emoji:count format:headings format:table "
        "length_constraints:nth_paragraph_first_word length_constraints:number_paragraphs lists:numbered paragraphs:paragraphs "
        "paragraphs:paragraphs2"
    ),
    "format:table": (
        "count:count_unique emoji:count first_word:first_word_sent keywords:start_end last_word:last_word_answer "
        "last_word:last_word_sent numbers:total startend:end_checker startend:quotation"
    ),
    "first_word:first_word_sent": (
        "combination:repeat_prompt count:count_unique detectable_content:postscript detectable_format:multiple_sections "
        "first_word:first_word_answer format:headings length_constraints:nth_paragraph_first_word lists:numbered"
    ),
    "count:count_unique": (
        "combination:repeat_prompt copy:repeat_phrase count:count_increment_word detectable_format:multiple_sections "
        "keywords:start_end last_word:last_word_sent"
    ),
    "punctuation:punctuation_dot": (
        "combination:repeat_prompt detectable_content:postscript lists:numbered punctuation:punctuation_exclamation"
    ),
    "last_word:last_word_sent": "combination:repeat_prompt keywords:start_end last_word:last_word_answer startend:end_checker",
    "startend:quotation": "detectable_format:multiple_sections format:headings keywords:start_end",
    "paragraphs:paragraphs": "length_constraints:nth_paragraph_first_word length_constraints:number_paragraphs paragraphs:paragraphs2",
    "first_word:first_word_answer": "combination:repeat_prompt detectable_format:multiple_sections format:headings",
    "startend:end_checker": "keywords:start_end last_word:last_word_answer",
    "numbers:total": "detectable_format:multiple_sections lists:numbered",
    "length_constraints:number_paragraphs": "length_constraints:nth_paragraph_first_word paragraphs:paragraphs2",
    "change_case:english_lowercase": "change_case:english_capital count:lowercase_counting",
    "letters:letter_counting2": "keywords:letter_frequency",
    "letters:letter_counting": "length_constraints:number_words",
    "last_word:last_word_answer": "keywords:start_end",
    "keywords:word_count_different_numbers": "keywords:frequency",
    "keywords:keyword_specific_position": "format:headings",
    "keywords:exclude_word_harder": "combination:repeat_prompt",
}
PAIRS = frozenset(frozenset((a, b)) for a, others in _TABLE.items() for b in others.split())


def conflict(a: str, b: str) -> bool:
    """Can the two kinds not stand in one set? A kind conflicts with itself: twice the same request is no second one."""
    return a == b or a in ALONE or b in ALONE or frozenset((a, b)) in PAIRS
