"""Which epochs train on smaller images, and what that leaves of the time."""

import pytest

from trainer.sides import Sides


@pytest.mark.parametrize(
    ("progressive", "sides"),
    [
        (None, [48] * 10),
        ("", [48] * 10),
        ("16:0.5 24:0.3", [16] * 5 + [24] * 3 + [48] * 2),
        ("16:0.34", [16] * 4 + [48] * 6),
        ("16:1.0", [16] * 10),
        ("16:0.05 24:0.55 32:0.3 40:0.1", [16] + [24] * 5 + [32] * 3 + [40]),  # rounded to above 1
    ],
)
def test_sides_follow_their_shares_of_the_epochs(progressive, sides):
    found = Sides(10, 48, progressive)
    assert [found.of(epoch) for epoch in range(1, 11)] == sides
    assert found.passes() == pytest.approx(sum((side / 48) ** 2 for side in sides))
    assert found.passes(9.75) == pytest.approx((sides[-1] / 48) ** 2 / 4)
    assert found.passes(10) == 0
