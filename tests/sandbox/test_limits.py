import pytest

from auren.sandbox.limits import Limit, Windows, parse


def test_a_text_names_any_number_of_limits() -> None:
    assert parse("100/60,10000/86400") == (Limit(100, 60), Limit(10_000, 86_400))
    assert parse("") == parse("0") == ()


@pytest.mark.parametrize("text", ["100", "a/b", "100/0", "0/60", "1/2/3", "-1/60"])
def test_a_text_that_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate limit"):
        parse(text)


def test_a_window_lets_so_many_calls_through_and_opens_again() -> None:
    windows = Windows(parse("2/60"))
    standings = [windows.admit("app", now) for now in (0, 1, 2, 59, 60)]
    assert [standing is not None and standing.allowed for standing in standings] == [True, True, False, False, True]


def test_every_limit_holds_and_the_tightest_is_told() -> None:
    windows = Windows(parse("2/60,3/3600"))
    told = [windows.admit("app", now) for now in (0, 0, 60, 60)]
    assert [standing and (standing.allowed, standing.limit.seconds) for standing in told][-1] == (False, 3_600)


def test_keys_do_not_share_a_window() -> None:
    windows = Windows(parse("1/60"))
    assert all(standing and standing.allowed for standing in (windows.admit("a", 0), windows.admit("b", 0)))
