"""Terraform for the tests: where it is, where its provider is, and how to run it offline.

The provider comes from a local plugin folder where one is found, and from the registry otherwise. Looked for:
TF_PLUGIN_DIR, the folders Terraform itself knows, and any folder of the machine's add-on packages that holds
`registry.terraform.io`. No path of a machine is written down in this repository.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REGISTRY = "registry.terraform.io"
TIMEOUT_S = float(os.environ.get("EXPERTMESH_INFRA_TIMEOUT_S", "540"))
"""Of one command; for machines that are busy with other things."""
ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "infra" / "terraform"
MODULES = sorted(p.name for p in (SOURCE / "modules").iterdir() if p.is_dir())
ENVIRONMENTS = sorted(p.name for p in (SOURCE / "environments").iterdir() if p.is_dir())


def find_terraform() -> str | None:
    """The program, or None where it is not installed."""
    return shutil.which("terraform")


def find_mirror() -> Path | None:
    """A folder that holds the AWS provider, or None: then the registry is asked."""
    named = os.environ.get("TF_PLUGIN_DIR")
    home = Path.home()
    known = [Path(named)] if named else []
    known += [home / ".terraform.d" / "plugins", home / ".local" / "share" / "terraform" / "plugins"]
    known += [Path("/usr/local/share/terraform/plugins"), Path("/usr/share/terraform/plugins")]
    known += sorted(p for p in Path("/").glob("opt/*") if p.is_dir())
    for folder in known:
        try:
            if (folder / REGISTRY / "hashicorp" / "aws").is_dir():
                return folder
        except OSError:
            continue
    return None


def missing() -> str:
    """What these tests lack on this machine, in words; empty where all is there."""
    if find_terraform() is None:
        return "terraform is not installed (1.11 or later: see docs/runbooks/deploy-aws.md)"
    if find_mirror() is not None:
        return ""
    try:
        socket.create_connection((REGISTRY, 443), timeout=5).close()
    except OSError:
        return "the AWS provider is in no local plugin folder (TF_PLUGIN_DIR names one), its registry out of reach"
    return ""


def write_cli_config(folder: Path) -> Path:
    """A CLI configuration that takes providers from the local folder, and an empty one without a folder."""
    mirror = find_mirror()
    lines = ["disable_checkpoint = true", ""]
    if mirror is not None:
        lines += [
            "provider_installation {",
            f'  filesystem_mirror {{\n    path    = "{mirror}"\n    include = ["{REGISTRY}/*/*"]\n  }}',
            f'  direct {{\n    exclude = ["{REGISTRY}/*/*"]\n  }}',
            "}",
        ]
    path = folder / "terraform.tfrc"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def find_provider() -> Path | None:
    """The AWS provider's program in the local folder, unpacked; None where there is none."""
    mirror = find_mirror()
    found = (
        sorted((mirror / REGISTRY / "hashicorp" / "aws").glob("5.100.*/*/terraform-provider-aws_*"))
        if mirror
        else []
    )
    return found[-1] if found else None


@contextmanager
def one_provider(program: Path, env: Mapping[str, str]) -> Iterator[str]:
    """One provider process for many commands; yields TF_REATTACH_PROVIDERS. Otherwise each run of each test
    starts (and each init hashes) a program of 700 MB. Only for mocks: real configurations would overwrite
    each other in it."""
    quiet = {f"TF_LOG_{part}": "OFF" for part in ("PROVIDER", "SDK", "SDK_MUX", "SDK_PROTO")}
    process = subprocess.Popen(
        [program, "-debug"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**env, **quiet},
    )
    assert process.stdout is not None
    try:
        said = (re.search(r"TF_REATTACH_PROVIDERS='(.*)'", line) for line in process.stdout)
        yield next(match[1] for match in said if match)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def copy_tree(target: Path) -> Path:
    """The Terraform tree (and the rule files it reads) in a place where Terraform may leave its own files."""
    ignore = shutil.ignore_patterns(".terraform", "*.tfstate*", "*.tfvars")
    shutil.copytree(SOURCE, target / "infra" / "terraform", ignore=ignore)
    rules = ROOT / "infra" / "prometheus"
    if rules.is_dir():
        shutil.copytree(rules, target / "infra" / "prometheus")
    return target / "infra" / "terraform"


def runs_of(folder: Path) -> dict[str, str]:
    """The runs of a module's or environment's tests: name to text."""
    text = "".join(
        path.read_text(encoding="utf-8") for path in sorted((folder / "tests").glob("*.tftest.hcl"))
    )
    return {found[1]: found[0] for found in re.finditer(r'^run "(\w+)" \{\n.*?^\}$', text, re.M | re.S)}


def from_above(text: str, folder: str) -> str:
    """A module's tests as a folder above it has them: each run says which module it is of."""
    return re.sub(
        r'^(run "\w+" \{\n)', rf'\g<1>  module {{\n    source = "./{folder}"\n  }}\n', text, flags=re.M
    )


@dataclass(frozen=True, slots=True)
class Terraform:
    """One configuration folder and the environment its commands run in."""

    folder: Path
    env: Mapping[str, str]

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """Begin a command; its output goes to `log`."""
        with log.open("wb") as out:
            return subprocess.Popen(
                ["terraform", *words],
                cwd=self.folder,
                env=dict(self.env),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def run(self, *words: str, expect: int = 0, timeout_s: float = TIMEOUT_S) -> str:
        """Run to the end and return what it said. Fails the test on another exit status than `expect`."""
        done = subprocess.run(
            ["terraform", *words],
            cwd=self.folder,
            env=dict(self.env),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == expect, (
            f"terraform {' '.join(words)} in {self.folder.name}: {done.returncode}\n{said[-6000:]}"
        )
        return said

    def output(self, *words: str) -> str:
        """Run to the end, whatever the end is, and return standard output."""
        done = subprocess.run(
            ["terraform", *words], cwd=self.folder, env=dict(self.env), capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.stdout

    def init(self) -> None:
        """Offline where the provider lies in a local folder. An environment's lock file must already fit."""
        words = ["init", "-no-color", "-input=false", "-backend=false"]
        if (self.folder / ".terraform.lock.hcl").exists():
            words.append("-lockfile=readonly")
        self.run(*words)

    def json(self, *words: str) -> Any:
        """A command's JSON."""
        return json.loads(self.run(*words))


if __name__ == "__main__":  # for make: prints what is missing, and succeeds where nothing is
    said = missing()
    print(said)
    sys.exit(1 if said else 0)
