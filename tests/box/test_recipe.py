"""The Dockerfile and the compose files, without a Docker engine: linted by real tools, true to the code."""

from __future__ import annotations

import json
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from gradledger_server.settings import Settings
from tests.box.recipe import (
    CHECKOUT,
    COMPOSE,
    COMPOSE_GPU,
    DOCKERFILE,
    compose,
    environment,
    stages,
    tool,
)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)


def test_hadolint_has_nothing_to_say() -> None:
    verdict = run(tool("hadolint"), str(DOCKERFILE))
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.parametrize("files", [[COMPOSE], [COMPOSE, COMPOSE_GPU]], ids=["cpu", "gpu"])
def test_docker_compose_accepts_the_files(files: list[Path]) -> None:
    named = [part for file in files for part in ("--file", str(file))]
    verdict = run(tool("docker-compose"), *named, "config", "--quiet")
    assert verdict.returncode == 0, verdict.stderr


def test_docker_compose_would_refuse_a_wrong_key(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("    ports:", "    portz:"))
    assert "portz" in run(tool("docker-compose"), "--file", str(wrong), "config", "--quiet").stderr


def copied_from_context() -> list[str]:
    copies = [value.split() for stage in stages().values() for value in stage.values("COPY")]
    return [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]


def test_every_copied_path_exists_and_travels_to_the_build() -> None:
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert copied_from_context()
    for source in copied_from_context():
        assert (CHECKOUT / source).exists(), f"the Dockerfile copies {source}, which is not in the checkout"
        travels = True
        for pattern in patterns:  # as Docker reads it: the last pattern that matches decides
            if fnmatch(source.removeprefix("./"), pattern.removeprefix("!")):
                travels = pattern.startswith("!")
        assert travels, f"the Dockerfile copies {source}, which .dockerignore holds back"


def test_stages_copied_from_exist_and_the_cpu_image_is_the_default() -> None:
    found = stages()
    sources = [re.match(r"--from=(\S+)", value) for stage in found.values() for value in stage.values("COPY")]
    assert {match[1] for match in sources if match} <= found.keys()
    assert list(found)[-1] == "cpu"
    assert found["cpu"].base == found["gpu"].base == "runtime"
    assert compose(COMPOSE)["gradledger"]["build"]["target"] == "cpu"
    assert compose(COMPOSE, COMPOSE_GPU)["gradledger"]["build"]["target"] == "gpu"


def test_the_gpu_image_differs_by_one_extra() -> None:
    [*_, install] = stages()["build"].values("RUN")
    assert stages()["build-gpu"].values("RUN") == [install.removesuffix(" .") + " '.[gpu]'"]


def test_the_image_runs_the_console_script_as_an_ordinary_user() -> None:
    runtime = stages()["runtime"]
    assert json.loads(runtime.values("CMD")[-1])[:2] == ["gradledger", "serve"]
    assert runtime.values("HEALTHCHECK")[-1].endswith('CMD ["gradledger", "healthcheck"]')
    assert int(runtime.values("USER")[-1]) > 0
    data = environment(runtime)["GRADLEDGER_DATA_DIR"]
    assert runtime.values("VOLUME") == [data]
    assert compose(COMPOSE)["gradledger"]["volumes"][0]["target"] == data


def test_ports_are_the_default_of_the_settings() -> None:
    port = Settings.model_fields["port"].default
    assert stages()["runtime"].values("EXPOSE") == [str(port)]
    [published] = compose(COMPOSE)["gradledger"]["ports"]
    assert (published["host_ip"], published["target"], published["published"]) == (
        "127.0.0.1",
        port,
        str(port),
    )


def test_environment_names_are_settings_and_their_values_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    images = stages()
    variables = environment(images["runtime"]) | environment(images["gpu"])
    variables |= compose(COMPOSE, COMPOSE_GPU)["gradledger"]["environment"]
    ours = {name: value for name, value in variables.items() if name.startswith("GRADLEDGER_")}
    assert {"GRADLEDGER_DATA_DIR", "GRADLEDGER_REDIS_URL", "GRADLEDGER_DEVICE"} <= ours.keys()
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    for name, value in ours.items():
        assert str(getattr(settings, name.removeprefix("GRADLEDGER_").lower())) == value


@pytest.mark.parametrize("service", ["gradledger", "valkey"])
def test_containers_hold_no_privilege(service: str) -> None:
    described = compose(COMPOSE, COMPOSE_GPU)[service]
    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in described


def test_the_service_is_given_longer_to_stop_than_it_takes_to_drain() -> None:
    grace = compose(COMPOSE)["gradledger"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings.model_fields["drain_s"].default


def test_the_service_waits_for_a_healthy_valkey_and_keeps_its_data() -> None:
    services = compose(COMPOSE)
    assert services["gradledger"]["depends_on"]["valkey"]["condition"] == "service_healthy"
    assert services["valkey"]["healthcheck"]["test"]
    assert [volume["type"] for volume in services["valkey"]["volumes"]] == ["volume"]
    assert re.fullmatch(r"valkey/valkey:\d+\.\d+-alpine", services["valkey"]["image"])
