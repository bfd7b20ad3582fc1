"""The files for containers, services and proxies fit the gateway that they run, and their own programs take them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segue.cli.main import app
from segue.config import Config, ServerConfig, load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROOT = DEPLOY.parent
DOCKER, KUBERNETES, PROXIES = DEPLOY / "docker", DEPLOY / "kubernetes" / "segue.yaml", DEPLOY / "proxies"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
UNIT = DEPLOY / "systemd" / "segue.service"
DIGEST = "099295a3784e1bd368dc348843a7398c1931b6b8ec2504c73e91ed2040bdc46c"
KEY_VARIABLES = {"SEGUE_KEY_0_NAME": "me", "SEGUE_KEY_0_TENANT": "me", "SEGUE_KEY_0_SHA256": DIGEST}
#: What a person writes into .env.
DOTENV = {"SEGUE_KEY_SHA256": DIGEST, "POSTGRES_PASSWORD": "secret1", "COMPACTION_SECRET": "c" * 32}


def command_of(arguments: list[str]) -> str:
    """The command of segue that these arguments are; it must know all of them."""
    command, _, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    return command.__name__


def documents(file: Path) -> list[dict[str, Any]]:
    return [msgspec.yaml.decode(part) for part in file.read_text("utf-8").split("\n---\n")]


def interpolated(text: str) -> str:
    """What compose makes of the variables in a file."""
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: DOTENV[found[1]], text)


def compose(name: str) -> dict[str, Any]:
    read: dict[str, Any] = msgspec.yaml.decode(interpolated((DOCKER / name).read_text("utf-8")))
    return read


def config_of(text: str, environ: dict[str, str], folder: Path) -> Config:
    file = folder / "segue.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ)


# ------------------------------------------------------------------------------------------------------------ container


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def test_the_image_runs_the_gateway_as_nobody_in_particular(tmp_path: Path) -> None:
    told = dict(dockerfile())
    entry, arguments = msgspec.json.decode(told["ENTRYPOINT"]), msgspec.json.decode(told["CMD"])
    assert entry == ["segue"]
    assert command_of(arguments) == "serve"
    user, _, group = told["USER"].partition(":")
    assert (user.isdecimal(), group.isdecimal(), "0" in (user, group)) == (True, True, False)
    config = config_of((DOCKER / "segue.toml").read_text("utf-8"), KEY_VARIABLES, tmp_path)
    assert config.server.store.startswith(f"sqlite:///{told['VOLUME']}/")
    assert str(config.server.port) == told["EXPOSE"]


def test_the_image_is_asked_how_it_is_by_a_name_that_is_always_served() -> None:
    found = re.search(r"HEALTHCHECK.*CMD (\[.*\])", "\n".join(map(" ".join, dockerfile())))
    assert found is not None
    program, flag, code = msgspec.json.decode(found[1])
    assert (program, flag) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    assert "http://127.0.0.1:4747/healthz" in code


def test_the_image_is_built_of_what_it_needs_and_nothing_else() -> None:
    """The build is sent only what is copied."""
    copied = [
        one for word, rest in dockerfile() if word == "COPY" and "--from" not in rest for one in rest.split()[:-1]
    ]
    wanted = [line for line in (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines() if line[0] in "!*"]
    assert wanted[0] == "*"
    assert sorted(line[1:] for line in wanted if line[0] == "!") == sorted(copied)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.deep  # `test_distributions` builds from the whole checkout
def test_what_the_image_is_built_of_is_enough(tmp_path: Path) -> None:
    """The files that the first stage copies give a wheel, with all extras that compose asks for."""
    for word, rest in dockerfile():
        if word == "COPY" and "--from" not in rest:
            for name in rest.split()[:-1]:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                copy(ROOT / name, tmp_path / name)
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("dist/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "segue/cli/main.py" in archive.namelist()
    services = compose("compose.cluster.yaml")["services"].values()
    extras = {one["build"]["args"]["EXTRAS"].strip("[]") for one in services if "build" in one}
    assert extras <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cluster.yaml"])
def test_gateways_of_compose_start_with_what_env_holds(name: str, tmp_path: Path) -> None:
    services = compose(name)["services"]
    gateways = [service for service in services.values() if str(service.get("image", "")).startswith("segue")]
    assert gateways
    for service in gateways:
        environ = {key: str(value) for key, value in service["environment"].items()}
        ours = {key: value for key, value in environ.items() if key.startswith("SEGUE_")}
        config = config_of((DOCKER / "segue.toml").read_text("utf-8"), ours, tmp_path)
        assert [key.sha256 for key in config.key] == [DIGEST]
        assert all(name in environ for name in config.compaction.secrets_env)
        assert (service["read_only"], service["cap_drop"], service["init"]) == (True, ["ALL"], True)
        assert float(service["stop_grace_period"].removesuffix("s")) > config.server.drain_s
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:4747:4747"], "nobody else reaches it"


def test_volumes_and_files_of_compose_are_there() -> None:
    for name in ("compose.yaml", "compose.cluster.yaml"):
        read = compose(name)
        for service in read["services"].values():
            for mount in service.get("volumes", ()):
                source = mount.split(":")[0]
                assert (DOCKER / source).exists() if source.startswith(".") else source in read["volumes"]
            assert set(service.get("depends_on", ())) <= read["services"].keys()


# ----------------------------------------------------------------------------------------------------------- Kubernetes


def test_kubernetes_runs_a_gateway_that_starts(tmp_path: Path) -> None:
    config_map, deployment, service, budget = documents(KUBERNETES)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environ = {one["name"]: one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"]}
    secrets = {"store": "postgresql://segue:p@db.example/segue", "live": "redis://cache.example:6379/0"}
    ours = {name: secrets[key] for name, key in environ.items() if name.startswith("SEGUE_")}
    config = config_of(config_map["data"]["segue.toml"], ours, tmp_path)
    assert command_of(container["args"]) == "serve"
    assert {up.key_env for up in config.upstream} | set(config.compaction.secrets_env) <= environ.keys()
    assert container["ports"] == [{"name": "http", "containerPort": config.server.port}]
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"])
    assert {tuple(one.items()) for one in (*selectors, budget["spec"]["selector"]["matchLabels"])} == {
        tuple(labels.items())
    }
    assert service["metadata"]["name"] in config.server.hosts


def test_a_pod_has_time_to_drain_and_is_asked_how_it_is() -> None:
    _, deployment, _, budget = documents(KUBERNETES)
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > pause + ServerConfig().drain_s
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        path = "/healthz?ready" if probe == "readinessProbe" else "/healthz"
        assert (asked["path"], asked["port"]) == (path, "http")
        assert asked["httpHeaders"] == [{"name": "Host", "value": "localhost"}], (
            "the address of a pod is no served name"
        )
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert spec["securityContext"]["runAsNonRoot"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]


def linter(name: str) -> str:
    """The program of the group `deploy`, which `make test-all` installs."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return found or pytest.skip(f"there is no {name} here: `pip install --group deploy`")


@pytest.mark.deep  # the tests above are its quick twin; the schemas are 100 MB
def test_kubernetes_knows_every_field(tmp_path: Path) -> None:
    """By the schemas of an old version, and of the newest that the validator has."""
    validate = linter("kubernetes-validate")
    for version in ("1.27", "1.37"):
        told = run([validate, "--strict", "--kubernetes-version", version, str(KUBERNETES)])
        assert told.count("passed for resource") == len(documents(KUBERNETES))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(KUBERNETES.read_text("utf-8").replace("maxSurge", "maxSurg"))
    done = subprocess.run([validate, "--strict", str(wrong)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "maxSurg" in done.stdout + done.stderr


@pytest.mark.deep
def test_a_linter_of_dockerfiles_has_nothing_to_say() -> None:
    assert run([linter("hadolint"), str(DOCKER / "Dockerfile")]) == ""


# -------------------------------------------------------------------------------------------------------------- systemd


def test_the_unit_starts_a_gateway_again_unless_its_settings_are_wrong() -> None:
    unit = RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign] # names of systemd have capitals
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert (program, command_of(arguments)) == ("/usr/local/bin/segue", "serve")
    assert command_of(shlex.split(service["ExecStartPre"])[1:]) == "check_config"
    assert service["RestartPreventExitStatus"] == "2", "the exit status of a mistake in the configuration"
    assert float(service["TimeoutStopSec"]) > ServerConfig().drain_s
    assert service["ExecReload"] == "kill -HUP $MAINPID"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit_and_finds_it_well_shut_in(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/usr/local/bin/segue", sys.executable))
    run(["systemd-analyze", "verify", str(unit)])
    run(["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)])


# -------------------------------------------------------------------------------------------------------------- proxies


def run(line: list[str]) -> str:
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def program(name: str) -> pytest.MarkDecorator:
    there = shutil.which(name) is not None or Path("/usr/sbin", name).exists()
    return pytest.mark.skipif(not there, reason=f"there is no {name} here: `apt-get install {name}`")


@program("haproxy")
def test_haproxy_takes_its_files(tmp_path: Path) -> None:
    """With a certificate that is there."""
    certificate = tmp_path / "gateway.pem"
    write_certificate(certificate, certificate)
    text = (PROXIES / "haproxy.cfg").read_text("utf-8").replace("/etc/haproxy/gateway.example.pem", str(certificate))
    (tmp_path / "haproxy.cfg").write_text(text)
    run(["/usr/sbin/haproxy", "-c", "-f", str(tmp_path / "haproxy.cfg")])
    run(["/usr/sbin/haproxy", "-c", "-f", str(DOCKER / "haproxy.cluster.cfg")])


@program("nginx")
def test_nginx_takes_its_file(tmp_path: Path) -> None:
    run(["/usr/sbin/nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(nginx_file(tmp_path))])


@program("caddy")
def test_caddy_takes_its_file() -> None:
    run(["caddy", "adapt", "--adapter", "caddyfile", "--config", str(PROXIES / "Caddyfile")])


def write_certificate(certificate: Path, key: Path) -> None:
    """Write what TLS needs for gateway.example."""
    import trustme

    issued = trustme.CA().issue_cert("gateway.example")
    pair = [issued.private_key_pem.bytes(), *(blob.bytes() for blob in issued.cert_chain_pems)]
    if certificate == key:
        certificate.write_bytes(b"".join(pair))
    else:
        key.write_bytes(pair[0])
        certificate.write_bytes(b"".join(pair[1:]))


def nginx_file(folder: Path) -> Path:
    """Write the main file of an nginx that has the block of ours, in a folder of its own."""
    write_certificate(folder / "gateway.pem", folder / "gateway.key")
    block = (PROXIES / "nginx.conf").read_text("utf-8").replace("/etc/nginx/gateway.example", str(folder / "gateway"))
    (folder / "segue.conf").write_text(block)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}include {folder}/segue.conf;\n}}\n"
    )
    return main
