"""Sharing resources out: even shares, explicit wishes, and what would fit."""

from __future__ import annotations

import pytest

from nvmelm.errors import MalformedError, NotSupportedError, UsageError
from nvmelm.prepare.resources import check_share, share
from tests.unit.pictures import picture, resources, secondary


def test_an_even_share_is_what_is_free_up_to_what_one_may_have() -> None:
    start = picture()
    assert share(start, start.secondaries[:2], None, None) == (3, 2)
    assert share(start, start.secondaries, None, None) == (3, 2)


def test_an_even_share_keeps_the_granularity() -> None:
    start = picture(vq=resources(flexible_total=22, secondary_maximum=8, granularity=4))
    assert share(start, start.secondaries[:4], None, 1) == (4, 1)


def test_what_a_function_has_already_counts_for_itself_again() -> None:
    function = secondary(1, vq=3, vi=2)
    start = picture(function, vq=resources(assigned_to_secondaries=12, flexible_total=12))
    assert share(start, [function], 3, 2) == (3, 2)


def test_a_wish_that_does_not_fit_names_one_that_does() -> None:
    start = picture()
    with pytest.raises(UsageError) as caught:
        share(start, start.secondaries, 4, None)
    assert caught.value.fix == "--vq 3 fits"


def test_a_wish_that_fits_fewer_functions_says_how_many() -> None:
    start = picture(vq=resources(flexible_total=8, secondary_maximum=4))
    with pytest.raises(UsageError) as caught:
        share(start, start.secondaries, 4, None)
    assert caught.value.fix == "--vq 2 fits, or --vq 4 for 2 VFs"


def test_less_than_the_specification_asks_for_is_tried_when_it_is_asked_for() -> None:
    start = picture()
    assert share(start, start.secondaries[:1], 1, None) == (1, 2)


def test_none_of_a_type_leaves_it_alone() -> None:
    start = picture()
    assert share(start, start.secondaries[:1], None, 0) == (3, None)


def test_the_most_a_secondary_may_have_is_named_where_it_decides() -> None:
    start = picture(vq=resources(flexible_total=64, secondary_maximum=1))
    with pytest.raises(NotSupportedError) as caught:
        share(start, start.secondaries, None, None)
    assert caught.value.cause.startswith("a secondary may have 1 VQ resources at most (VQFRSM)")
    assert caught.value.fix == "--vq 1 is tried all the same, and the device decides"
    with pytest.raises(UsageError) as refused:
        share(start, start.secondaries, 2, None)
    assert "(VQFRSM)" in refused.value.cause
    assert refused.value.fix == "--vq 1 fits"


def test_more_given_out_than_there_is_is_not_shared_out() -> None:
    start = picture(vq=resources(flexible_total=4, assigned_to_secondaries=9))
    with pytest.raises(MalformedError, match="contradict") as caught:
        share(start, start.secondaries[:1], None, None)
    assert "VQFRT" in caught.value.cause


def test_too_few_resources_for_all_say_how_many_functions_they_last_for() -> None:
    start = picture(vq=resources(flexible_total=12, assigned_to_secondaries=7))
    with pytest.raises(NotSupportedError) as caught:
        share(start, start.secondaries, None, None)
    assert caught.value.fix.startswith("prepare 2 VFs at most")


def test_a_type_the_primary_does_not_support_is_left_out() -> None:
    start = picture(vi=resources(supported=False, flexible_total=0))
    assert share(start, start.secondaries[:1], None, None) == (3, 0)
    with pytest.raises(NotSupportedError):
        share(start, start.secondaries[:1], None, 1)


def test_a_controller_that_claims_more_assigned_than_there_is_has_nothing_free() -> None:
    start = picture(vq=resources(flexible_total=4, assigned_to_secondaries=0xFFFF_FFFF))
    assert start.primary.vq is not None
    assert start.primary.vq.free == 0


@pytest.mark.parametrize("kind", ["vq", "vi"])
def test_a_count_that_does_not_fit_one_function_is_refused_and_one_that_is_not_wished_is_not_looked_at(
    kind: str,
) -> None:
    start = picture(
        vq=resources(flexible_total=8, secondary_maximum=4), vi=resources(flexible_total=8, secondary_maximum=4)
    )
    chosen = start.secondaries[:1]
    check_share(start, chosen, None, None)
    fitting: dict[str, int | None] = {"vq": None, "vi": None, kind: 4}
    check_share(start, chosen, **fitting)
    with pytest.raises(UsageError, match=kind.upper()):
        check_share(start, chosen, **{**fitting, kind: 9})


@pytest.mark.parametrize(("count", "rounded"), [(9, 8), (8, 8), (7, 4), (4, 4), (3, 3), (2, 2)])
def test_a_share_is_rounded_down_as_long_as_it_leaves_the_least(count: int, rounded: int) -> None:
    start = picture(vq=resources(flexible_total=count, secondary_maximum=count, granularity=4))
    assert share(start, start.secondaries[:1], None, 1)[0] == rounded


def test_a_share_rounded_to_the_least_itself_is_enough() -> None:
    start = picture(vq=resources(flexible_total=3, secondary_maximum=3, granularity=2))
    assert share(start, start.secondaries[:1], None, 1)[0] == 2
