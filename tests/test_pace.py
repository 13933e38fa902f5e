from auren.pace import Pace


def test_a_rest_is_a_multiple_of_what_looking_takes_within_its_bounds() -> None:
    pace = Pace(20, least=1, most=60)
    assert pace.rest == 1
    pace.took(0.5)
    pace.took(0.2)
    assert pace.rest == 4
    pace.took(9)
    pace.took(10)
    assert pace.rest == 60


def test_one_look_that_took_long_is_no_reason_to_rest_longer() -> None:
    pace = Pace(5, least=0.2, most=5)
    pace.took(0.01)
    pace.took(15)
    assert pace.rest == 0.2
    pace.took(0.01)
    assert pace.rest == 0.2
