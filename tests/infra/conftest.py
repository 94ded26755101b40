"""Fixtures of the infrastructure tests: one copy of the tree, one fake AWS, one apply for all."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.infra.terraform import (
    TIMEOUT_S,
    Terraform,
    copy_tree,
    find_provider,
    find_terraform,
    one_provider,
    write_cli_config,
)

# These tests live in an environment of their own (`make infra-test`); another one passes them by.
if importlib.util.find_spec("moto") is None or find_terraform() is None:
    collect_ignore_glob = ["test_*.py"]

HERE = Path(__file__).resolve().parent
REGION, REPLICA_REGION = "eu-central-1", "eu-west-1"


@dataclass(frozen=True, slots=True)
class Cloud:
    """A fake AWS, and what exists in it beforehand."""

    url: str
    certificate_arn: str
    ami_id: str

    def tfvars(self) -> str:
        return (
            f'region = "{REGION}"\nreplica_region = "{REPLICA_REGION}"\ncertificate_arn = "{self.certificate_arn}"\n'
            f'ami_ids = {{ cpu = "{self.ami_id}", gpu = "{self.ami_id}" }}\nalarm_emails = ["oncall@example.org"]\n'
        )


@pytest.fixture(scope="session")
def tf_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of every Terraform command: offline, without anybody's credentials."""
    home = tmp_path_factory.mktemp("cli")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TF_"))}
    cache = home / "plugin-cache"
    cache.mkdir()
    return {
        **kept,
        "TF_CLI_CONFIG_FILE": str(write_cli_config(home)),
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "TF_PLUGIN_CACHE_DIR": str(cache),
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of infra/terraform."""
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def mockable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose secrets are plain: see stand_ins/secret."""
    tree = copy_tree(tmp_path_factory.mktemp("mockable"))
    shutil.copy(HERE / "stand_ins" / "secret" / "main.tf", tree / "modules" / "secret" / "main.tf")
    shutil.copy(tree / "modules" / "network" / "versions.tf", tree / "versions.tf")  # tests run from here
    return tree


@pytest.fixture(scope="session")
def mock_env(tf_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Mocks and `validate` need the provider's schema only: one process serves all where we find its program."""
    program = find_provider()
    if program is None:
        yield tf_env
        return
    with one_provider(program, tf_env) as reattach:
        yield {**tf_env, "TF_REATTACH_PROVIDERS": reattach}


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """moto with our patches, in a process of its own that ends with this one."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "fake_aws.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path_factory.mktemp("fake") / "log").open("w"),
        text=True,
        env=env,
    )
    assert process.stdout is not None and process.stdin is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), "the fake AWS did not start"
    from tests.infra.seed import seed

    yield Cloud(url, *seed(url, REGION))
    process.stdin.close()
    try:
        process.wait(timeout=120)
    except subprocess.TimeoutExpired:  # on a machine that is busy with other tests; it holds nothing
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, tf_env: dict[str, str], cloud: Cloud) -> Terraform:
    """environments/local, ready to apply to the fake; modules/redis has its stand-in there."""
    tree = copy_tree(tmp_path_factory.mktemp("local"))
    for part in (HERE / "stand_ins" / "redis").glob("*.tf"):
        shutil.copy(part, tree / "modules" / "redis" / part.name)
    folder = tree / "environments" / "local"
    (folder / "test.auto.tfvars").write_text(cloud.tfvars(), encoding="utf-8")
    terraform = Terraform(folder, {**tf_env, "AWS_ENDPOINT_URL": cloud.url})
    terraform.init()
    return terraform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at the applied installation comes last: the apply runs beside the others meanwhile."""
    items.sort(key=lambda item: "applied" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def applying(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes] | None]:
    """The apply takes minutes and mostly waits, so that it starts first and other tests run beside it."""
    wanted = any("applied" in getattr(item, "fixturenames", ()) for item in request.session.items)
    if not wanted:
        yield None
        return
    local: Terraform = request.getfixturevalue("local")
    log = local.folder / "apply.log"
    process = local.start("apply", "-auto-approve", "-no-color", "-input=false", "-parallelism=40", log=log)
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="session")
def applied(applying: subprocess.Popen[bytes], local: Terraform) -> Terraform:
    """environments/local as it stands in the fake AWS."""
    status = applying.wait(timeout=TIMEOUT_S)
    said = (local.folder / "apply.log").read_text(encoding="utf-8", errors="replace")
    assert status == 0, f"apply failed\n{said[-6000:]}"
    return local
