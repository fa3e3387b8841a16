"""Extended regular expressions, compared with Python's `re` where the two mean the same."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from purekrb.krb5conf.posix_ere import Ere, Steps

SIMPLE = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", ""]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}|{p[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,}"])).map(
            lambda p: f"({p[0]}){p[1]}"
        ),
    ),
    max_leaves=6,
)


@given(SIMPLE, st.text("abc", max_size=6))
def test_the_whole_text_matches_where_re_says_so(expression: str, text: str) -> None:
    assert Ere(expression).fits(text, Steps()) == bool(re.fullmatch(expression, text))


@given(SIMPLE, st.text("abc", max_size=6))
def test_a_search_finds_the_leftmost_and_longest(expression: str, text: str) -> None:
    pattern = re.compile(expression)
    spans = [
        (start, end)
        for start in range(len(text) + 1)
        for end in range(start, len(text) + 1)
        if pattern.fullmatch(text[start:end])
    ]
    expected = min(spans, key=lambda span: (span[0], -span[1]), default=None)
    assert Ere(expression).search(text, Steps()) == expected
