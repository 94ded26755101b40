# Infrastructure: `make infra-test` formats, validates, tests, scans, applies to a fake AWS on loopback, destroys.
# Part of `make test`. Where Terraform or its provider is missing, it says so in one line and goes on.
INFRA_VENV ?= .venv-infra

.PHONY: infra-test infra-fmt

$(INFRA_VENV)/.stamp: infra/requirements-infra.txt
	@"$$($(find_python))" -m venv $(INFRA_VENV)
	@$(INFRA_VENV)/bin/pip install --quiet --no-deps --require-hashes -r infra/requirements-infra.txt
	@touch $@

# `make`, not $(MAKE), which would run all of this under `make -n` too.
infra-test: ## Terraform: every module, and a whole installation on a fake AWS
	@if missing="$$("$$($(find_python))" tests/infra/terraform.py)"; then \
	  make --no-print-directory $(INFRA_VENV)/.stamp && env -u AWS_CA_BUNDLE $(INFRA_VENV)/bin/python -m pytest \
	    tests/infra tests/contracts/test_nodes.py --confcutdir=tests/infra $(INFRA_ARGS); \
	else echo "infra-test: NOT RUN: $$missing"; fi

infra-fmt: ## format the Terraform files
	@terraform fmt -recursive infra/terraform
