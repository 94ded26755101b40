"""Hard negatives in English and Chinese, and paraphrases that must pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cache.guards import compatible, marks_of

DIFFERENT = [
    ("Can I return it after 14 days?", "Can I return it after 30 days?"),
    ("Can I return it after fourteen days?", "Can I return it after 30 days?"),
    ("Is 5 km far?", "Is 5 miles far?"),
    ("Do you deliver?", "Do you not deliver?"),
    ("Why can I log in?", "Why can't I log in?"),
    ("How do I enable roaming?", "How do I disable roaming?"),
    ("How do I turn on roaming?", "How do I turn off roaming?"),
    ("Are you open on Monday?", "Are you open on Sunday?"),
    ("Is it due in March?", "Is it due in April 2024?"),
    ('What does "E101" mean?', 'What does "E102" mean?'),
    ("What does E101 mean?", "What does E102 mean?"),
    ("Does it run on Android?", "Does it run on Linux?"),
    ("How do I upload a file?", "How do I download a file?"),
    ("What is the maximum size?", "What is the minimum size?"),
    ("Can I change it before check-in?", "Can I change it after check-in?"),
    ("How do I get 10% off?", "How do I get 15% off?"),
    ("怎么开通漫游？", "怎么关闭漫游？"),
    ("三天内可以退货吗？", "七天内可以退货吗？"),
    ("3天内可以退货吗？", "7天内可以退货吗？"),
    ("可以退款吗？", "不可以退款吗？"),
    ("周一营业吗？", "周日营业吗？"),
    ("支持Windows吗？", "支持Linux吗？"),
    ("怎么充值？", "怎么提现？"),
    ("“已发货”是什么意思？", "“已签收”是什么意思？"),
    ("这个要多少美元？3美元？", "这个要多少日元？3日元？"),
]
SAME = [
    ("How do I cancel my order?", "How can I cancel an order I placed?"),
    ("Can I return it after 14 days?", "Is a return possible fourteen days after purchase?"),
    ("Are you open on Monday?", "What are your opening hours on Mondays?"),
    ("How do I enable roaming?", "What are the steps to activate roaming?"),
    ("How do I turn on roaming?", "How do I switch on roaming?"),
    ("Does it run on Android?", "Is there a version for Android?"),
    ("3天内可以退货吗？", "三天以内能不能退货？"),
    ("怎么开通国际漫游？", "如何开启国际漫游"),
    ("有没有会员？", "是不是有会员？"),
    ("周日营业吗？", "星期天营业吗？"),
    ("支持ｉＯＳ吗？", "支持iOS吗？"),
]


@pytest.mark.parametrize(("one", "two"), DIFFERENT)
def test_look_alikes_are_told_apart(one: str, two: str) -> None:
    assert not compatible(marks_of(one), marks_of(two))


@pytest.mark.parametrize(("one", "two"), SAME)
def test_paraphrases_pass(one: str, two: str) -> None:
    assert compatible(marks_of(one), marks_of(two)), (marks_of(one), marks_of(two))


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_has_marks_and_equals_itself(text: str) -> None:
    assert compatible(marks_of(text), marks_of(text))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_numbers_are_compared_by_value(one: int, two: int) -> None:
    assert compatible(marks_of(f"pay {one} now"), marks_of(f"pay {two} now")) is (one == two)
