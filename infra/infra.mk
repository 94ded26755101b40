# Infrastructure: `make infra-test` formats, validates, tests, scans, applies to a fake AWS on loopback, destroys.
INFRA_VENV ?= .venv-infra

.PHONY: infra-test infra-fmt

$(INFRA_VENV)/.stamp: infra/requirements-infra.txt
	@python3.11 -m venv $(INFRA_VENV)
	@$(INFRA_VENV)/bin/pip install --quiet --no-deps --require-hashes -r infra/requirements-infra.txt
	@touch $@

ifneq ($(shell command -v terraform 2>/dev/null),)
infra-test: $(INFRA_VENV)/.stamp ## Terraform: every module, and a whole installation on a fake AWS
	@env -u AWS_CA_BUNDLE $(INFRA_VENV)/bin/python -m pytest tests/infra tests/contracts/test_nodes.py --confcutdir=tests/infra $(ARGS)
else
infra-test:
	@echo "infra-test: NOT RUN, terraform is not installed (1.11 or later: see docs/runbooks/deploy-aws.md)"
endif

infra-fmt: ## format the Terraform files
	@terraform fmt -recursive infra/terraform
