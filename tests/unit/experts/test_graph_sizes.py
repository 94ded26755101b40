"""Which steps of a GPU's engine are captured."""

from bisect import bisect_left

from services.experts.graph_sizes import LONGEST, graph_sizes


def test_every_step_up_to_the_longest_has_a_graph_that_is_little_larger() -> None:
    sizes = graph_sizes()
    assert sizes[-1] == LONGEST
    assert list(sizes) == sorted(set(sizes))
    for tokens in range(1, LONGEST + 1):
        held = sizes[bisect_left(sizes, tokens)]
        assert held - tokens < max(8, tokens / 4), (tokens, held)


def test_few_enough_to_be_captured_in_seconds() -> None:
    assert len(graph_sizes()) <= 32


def test_a_shorter_list_is_a_part_of_the_long_one() -> None:
    assert graph_sizes(64) == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
    assert set(graph_sizes(512)) <= set(graph_sizes())
