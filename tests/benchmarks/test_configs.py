import argparse
import pathlib

import pytest
import yaml

from benchmarks import compare, overheads
from benchmarks.contenders import CONTENDERS, PEERS
from benchmarks.contenders.nstarx import CONFIG, NStarX
from nstarx.spec.route import RouteSpec


@pytest.mark.parametrize("config", sorted(CONFIG.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_configuration_has_one_gateway_process_one_replica_and_valid_routes(config: pathlib.Path) -> None:
    document = yaml.safe_load(config.read_text())
    assert document["gateway"]["processes"] == 1
    assert [version["replicas"] for version in document["versions"]] == [1]
    assert [RouteSpec.model_validate(route).model for route in document["routes"]] == ["iris"]


def test_gateway_is_asked_on_the_port_of_its_configuration() -> None:
    assert NStarX().port() == yaml.safe_load(CONFIG.read_text())["gateway"]["port"]


def test_thousand_routes_differ_in_their_model_alone(tmp_path: pathlib.Path) -> None:
    document = yaml.safe_load(overheads.configuration("many", tmp_path, routes=1000).read_text())
    assert len({route["model"] for route in document["routes"]}) == 1000
    assert {str(route["split"]) for route in document["routes"]} == {"{'weighted': {'iris@1.0.0': 100}}"}
    assert pathlib.Path(document["repository"]).is_absolute()


def test_gateways_that_are_compared_can_be_up_at_once(tmp_path: pathlib.Path) -> None:
    for pair in overheads.pairs(tmp_path):
        assert pair.plain.gateway.port() != pair.loaded.gateway.port()


def test_contenders_have_names_of_their_own() -> None:
    assert len(set(compare.NAMES)) == len(CONTENDERS + PEERS)


def test_unknown_contender_is_refused_with_the_known_ones() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no contender is called fast; there are nstarx"):
        compare.names("bare,fast")


def test_contenders_are_chosen_by_name_or_all_without_or_with_peers() -> None:
    parse = compare.arguments().parse_args
    assert [c.name for c in compare.chosen(parse(["--contenders", "bare,nstarx"]))] == ["nstarx", "bare"]
    assert compare.chosen(parse([])) == CONTENDERS
    assert compare.chosen(parse(["--peers"])) == CONTENDERS + PEERS
