import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from loadtests.plan import plan
from loadtests.scenario import Scenario, ScenarioError, Shipped, load, parse, shipped

SHIPPED = [
    "agents",
    "engine-killed",
    "fairness",
    "long-prompts",
    "many-short",
    "slow-clients",
    "soak",
    "steady",
    "storm",
    "thrash",
]

SMALL = """
name = "small"
seconds = 10
[arrivals]
kind = "poisson"
rate = 2
[routes]
mix = "zipf"
count = 3
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "small.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def refused(table: dict[str, object], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        parse(tomllib.loads(SMALL) | table, "small.toml")


def test_the_shipped_scenarios_are_those_of_the_documentation():
    assert SHIPPED == [one.name for one in shipped()]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_has_its_files_name_a_sentence_and_a_comment_for_people(name):
    text = (resources.files("loadtests") / "scenarios" / f"{name}.toml").read_text()
    scenario = load(name)
    assert (name, ".") == (scenario.name, scenario.says[-1])
    assert text.startswith("# ")
    assert Shipped(name, scenario.says) in shipped()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_asks_for_no_more_than_two_cores_can_answer(name):
    scenario = load(name)
    made = plan(scenario)
    assert 5 < sum(request.max_tokens for request in made.requests) / scenario.total_s < 150
    assert max(len(request.text.split()) + request.max_tokens for request in made.requests) < 2048 / 1.1


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_can_be_made_short(name):
    assert 0 < len(plan(load(name, {"seconds": 6, "warmup_s": 0, "seed": 3})).requests) < 100


def test_a_path_is_read_and_a_bare_name_is_a_shipped_one(write):
    assert "small" == load(write(SMALL)).name == load(str(write(SMALL))).name
    assert "steady" == load("steady").name


def test_a_name_nobody_ships_suggests_the_nearest():
    with pytest.raises(ScenarioError, match="no shipped scenario 'stedy'; did you mean 'steady'"):
        load("stedy")


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere\.toml cannot be read"):
        load(tmp_path / "nowhere.toml")


def test_a_file_that_is_no_toml_says_where(write):
    with pytest.raises(ScenarioError, match=r"small\.toml is not valid TOML: .*line 3"):
        load(write('name = "x"\nseconds = 1\nrate = = 2\n'))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("seconds", 7, lambda s: s.seconds),
        ("arrivals.rate", 20, lambda s: s.arrivals.rate),
        ("client.timeout_s", 3, lambda s: s.client.timeout_s),
        ("routes.s", 0.5, lambda s: s.routes.s),
    ],
)
def test_a_dotted_override_replaces_one_value(write, key, value, found):
    assert value == found(load(write(SMALL), {key: value}))


def test_an_override_replaces_a_whole_table(write):
    scenario = load(write(SMALL), {"arrivals": {"kind": "gamma", "rate": 3, "cv": 2}})
    assert ("gamma", 3, 2) == tuple(scenario.arrivals.model_dump().values())


def test_overriding_the_names_takes_the_place_of_the_count(write):
    assert ("a", "b") == load(write(SMALL), {"routes.names": ["a", "b"]}).routes.routes


def test_an_override_of_nothing_is_ignored(write):
    assert load(write(SMALL)) == load(write(SMALL), {"arrivals.rate": None})


def test_an_override_reaches_into_a_phase():
    assert 4 == len(load("storm", {"phases.1.routes.count": 4}).phases[1].routes.routes)


def test_seconds_shrink_phases_and_move_their_faults_along():
    scenario = load("engine-killed", {"seconds": 11})
    assert [2, 6, 3] == [phase.seconds for phase in scenario.phases]
    assert [2] == [fault.at_s for fault in scenario.faults]


@pytest.mark.parametrize("key", ["name.x", "phases.9.seconds", "phases.first.seconds"])
def test_an_override_of_a_table_that_is_not_there_says_so(key):
    with pytest.raises(ScenarioError, match=f"storm: cannot set {key} = 1: there is no such table"):
        load("storm", {key: 1})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seconds = 10", r"small\.toml: name is missing"),
        (SMALL.replace("seconds", "secnds"), r"secnds = 10: unknown key; did you mean 'seconds'\?"),
        (SMALL.replace("rate", "rat"), r"arrivals\.rat = 2: unknown key; did you mean 'rate'\?"),
        (SMALL.replace("count", "cuont"), r"routes\.cuont = 3: unknown key; did you mean 'count'\?"),
        (SMALL.replace("poisson", "poison"), r"arrivals\.kind = 'poison': unknown; did you mean 'poisson'\?"),
        (SMALL.replace('mix = "zipf"', ""), r"routes\.mix is missing"),
        (SMALL.replace("rate = 2", "rate = -2"), r"arrivals\.rate = -2: .*greater than 0"),
        (
            SMALL + "[output]\nkind = 'uniform'\nlo = 1\nhigh = 2",
            r"output\.lo = 1: unknown key; did you mean 'low'",
        ),
        (
            SMALL + "[[phases]]\nname = 'a'\nsecs = 1",
            r"phases\.0\.secs = 1: unknown key; did you mean 'seconds'",
        ),
        (
            SMALL + "[client]\nqqq = 1",
            r"client\.qqq = 1: unknown key; known here: drain_s, max_lag_s, max_open",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_file_and_the_nearest_known_one(write, text, says):
    with pytest.raises(ScenarioError, match=rf"small\.toml: {says}" if "small" not in says else says):
        load(write(text))


def test_every_mistake_is_reported_at_once(write):
    with pytest.raises(ScenarioError) as caught:
        load(write(SMALL.replace("seconds", "secnds").replace("rate", "rat")))
    assert 4 == len(str(caught.value).splitlines())


def test_the_length_of_phases_is_their_sum():
    table = tomllib.loads(SMALL) | {"phases": [{"name": "a", "seconds": 3}, {"name": "b", "seconds": 4}]}
    del table["seconds"]
    scenario = parse(table | {"warmup_s": 2}, "small.toml")
    assert (7, 9) == (scenario.seconds, scenario.total_s)
    assert {"warmup": 2, "a": 3, "b": 4} == scenario.phase_seconds


def test_a_run_without_phases_is_one_phase():
    assert {"run": 10} == parse(tomllib.loads(SMALL), "small.toml").phase_seconds


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"phases": [{"name": "a", "seconds": 3}]}, "seconds = 10, but the phases last 3 together"),
        ({"phases": [{"name": "warmup", "seconds": 10}]}, "names must differ"),
        ({"phases": [{"name": "a", "seconds": 5}] * 2}, "names must differ"),
        (
            {"faults": [{"at_s": 10, "do": "kill", "pid_env": "P"}]},
            "at_s = 10 is after the run's end at 10 s",
        ),
        ({"faults": [{"at_s": 1, "do": "kill"}]}, "give either pid_env or pid_file"),
        ({"faults": [{"at_s": 1, "do": "kll", "pid_env": "P"}]}, r"faults\.0\.do = 'kll': .*'kill'"),
        ({"thresholds": ["ttft.p98>1"]}, "unknown metric 'ttft.p98'; did you mean"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(table, says):
    refused(table, says)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"warmup_s": 1}, "warmup_s cannot be kept; use arrivals.warmup_requests"),
        ({"sessions": {"turns": 2, "think_s": 1}}, "sessions cannot be kept; use open-loop"),
        ({"phases": [{"name": "a", "seconds": 10}]}, "phases cannot be kept; use open-loop"),
    ],
)
def test_a_closed_loop_refuses_what_needs_times(table, says):
    refused({"arrivals": {"kind": "closed", "concurrency": 2, "requests": 4}} | table, says)


def test_a_phase_cannot_be_a_closed_loop():
    closed = {"kind": "closed", "concurrency": 2, "requests": 4}
    refused({"phases": [{"name": "a", "seconds": 10, "arrivals": closed}]}, "a phase cannot be closed")


def test_a_trace_has_no_sessions():
    trace = {"kind": "trace", "file": "t.csv", "format": "azure"}
    refused({"arrivals": trace, "sessions": {"turns": 2, "think_s": 1}}, "a trace has requests, not sessions")


def test_a_scenario_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse(tomllib.loads(SMALL), "small.toml").seed = 2  # type: ignore[misc]


def test_a_scenario_survives_its_own_json():
    for name in SHIPPED:
        scenario = load(name)
        assert scenario == Scenario.model_validate_json(scenario.model_dump_json())
