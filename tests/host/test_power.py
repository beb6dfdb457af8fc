"""What a board draws at the battery: held against arithmetic done by hand."""

import pytest

from outpost import boards, power

CELL = boards.batteries()["li-ion-18650"]
ESP32 = boards.load("esp32")


def test_a_current_at_the_rail_is_a_power_at_the_battery():
    powers = power.powers_uw(ESP32, CELL, "wifi")
    base = 11 * 3.6 + 3 * 3.3 / 0.9  # the converter itself, and the sensor at rest
    assert powers["sleep"] == pytest.approx(10 * 3.3 / 0.9 + base)
    assert powers["active"] == pytest.approx(36_000 * 3.3 / 0.9 + base)
    assert powers["radio"] == pytest.approx(135_000 * 3.3 / 0.9 + base)
    assert powers["flash"] == pytest.approx(20_000 * 3.3 / 0.9)  # added to a state: no base
    assert powers["listen"] == pytest.approx((26 - 3) * 3.3 / 0.9)
    assert power.powers_uw(ESP32, CELL, "espnow")["radio"] < powers["radio"]


def test_self_discharge_takes_its_share_of_a_full_battery_in_a_year():
    powers = power.powers_uw(ESP32, CELL, "wifi")
    assert powers["leak"] * 1e-6 * power.YEAR_S == pytest.approx(
        0.24 * 3.35 * 3.6 * 3600)  # J


def test_a_board_without_a_figure_of_its_boot_draws_what_it_draws_awake():
    powers = power.powers_uw(boards.load("rp2040"), CELL, "serial")
    assert powers["boot"] == powers["active"]


@pytest.mark.parametrize("name", boards.names())
@pytest.mark.parametrize("battery", boards.batteries())
def test_a_node_is_told_whole_numbers_a_thousandth_off_at_most(name, battery):
    board, cell = boards.load(name), boards.batteries()[battery]
    told = power.figures(board, cell)
    exact = power.powers_uw(board, cell, next(iter(board.power["radio"])))
    for key, uw in exact.items():
        found = told["power"].get(f"{key}_nw", told["power"].get(f"{key}_uw", 0) * 1000)
        assert isinstance(found, int)
        assert found == pytest.approx(uw * 1000, rel=1e-3)
    assert told["battery"]["curve"][0][0] == 0 and told["battery"]["curve"][-1][0] == 100
    assert 0 < told["battery"]["capacity_mj"] < 1 << 30  # a small integer of the node
