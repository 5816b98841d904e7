"""What is tuned, and over which ranges."""

import pytest

from config import Config, InputError
from tuning.search_space import DEFAULT_SPACE, TUNABLE, Range, SearchSpace, parse_search_space


def test_names_and_ranges() -> None:
    assert parse_search_space("dist_reg_weight") == DEFAULT_SPACE
    space = parse_search_space(
        "ema_momentum,phase1_learning_rate,dist_reg_weight",
        ["phase1_learning_rate=1e-4:1e-2:log", "dist_reg_weight=0.1:0.2:linear"],
    )
    assert parse_search_space(" ema_momentum, dist_reg_weight ").ranges.keys() == {
        "ema_momentum", "dist_reg_weight"
    }  # fmt: skip
    assert space.ranges == {
        "ema_momentum": TUNABLE["ema_momentum"],
        "phase1_learning_rate": Range(1e-4, 1e-2, log=True),
        "dist_reg_weight": Range(0.1, 0.2, log=False),
    }
    scale_of_its_own = parse_search_space("dist_reg_weight", ["dist_reg_weight=0.1:0.2"])
    assert scale_of_its_own.ranges["dist_reg_weight"].log


@pytest.mark.parametrize(
    ("tune", "given", "message"),
    [
        ("dist_reg_wait", [], r"did you mean dist_reg_weight\?"),
        ("", [], "'' cannot be tuned; these can: dist_reg_weight, contraction_weight"),
        ("dropout", [], "'dropout' cannot be tuned"),
        ("ema_momentum,ema_momentum", [], "names 'ema_momentum' twice"),
        ("ema_momentum", ["dist_reg_weight=0.1:0.2"], "that is not tuned; add it to --tune"),
        ("ema_momentum", ["ema_momentum=0:0.5"] * 2, "the second one of ema_momentum"),
        ("ema_momentum", ["ema_momentum"], "is not name=low:high"),
        ("ema_momentum", ["ema_momentum=0.1"], "is not name=low:high"),
        ("ema_momentum", ["ema_momentum=a:b"], "does not have two numbers"),
        ("ema_momentum", ["ema_momentum=0:nan"], "not finite"),
        ("ema_momentum", ["ema_momentum=0.5:0.5"], "not below the upper"),
        ("ema_momentum", ["ema_momentum=0:0.5:log"], "not positive"),
        ("ema_momentum", ["ema_momentum=0:0.5:cubic"], "neither log nor linear"),
        ("ema_momentum", ["ema_momentum=0:1"], "has the end 1, .* at least 0 and below 1"),
    ],
)
def test_what_no_study_could_tune(tune: str, given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_search_space(tune, given)


def test_every_range_holds_the_default_and_valid_configurations() -> None:
    space = SearchSpace(TUNABLE)
    assert space.default_of(Config()) == {name: getattr(Config(), name) for name in TUNABLE}
    for name, bounds in TUNABLE.items():
        for end in bounds[:2]:
            assert getattr(Config(**{name: end}), name) == end
    narrow = parse_search_space("dist_reg_weight", ["dist_reg_weight=0.6:0.7"])
    assert narrow.default_of(Config()) is None


def test_a_grid_has_its_ends_and_no_more_points_than_asked() -> None:
    space = parse_search_space("dist_reg_weight,ema_momentum")
    grid = space.grid(10)
    assert {name: len(values) for name, values in grid.items()} == dict.fromkeys(grid, 3)
    assert grid["dist_reg_weight"] == pytest.approx([0.01, (0.01 * 0.99) ** 0.5, 0.99])
    assert grid["ema_momentum"] == pytest.approx([0.0, 0.4995, 0.999])
    assert [len(values) for values in space.grid(1).values()] == [2, 2]
