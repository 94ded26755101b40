mock_provider "aws" {}

variables {
  name   = "mesh-test"
  vpc_id = "vpc-0123456789abcdef0"
}

run "only_443_from_outside" {
  assert {
    condition     = alltrue([for r in aws_vpc_security_group_ingress_rule.edge : r.from_port == 443 && r.to_port == 443 && r.ip_protocol == "tcp"])
    error_message = "Clients reach 443 and nothing else."
  }
  assert {
    condition     = alltrue([for r in aws_vpc_security_group_ingress_rule.group : r.cidr_ipv4 == null && r.referenced_security_group_id != null])
    error_message = "Inside, rules name groups, never ranges."
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.node_https.from_port == 443 && aws_vpc_security_group_egress_rule.node_https.to_port == 443
    error_message = "Nodes leave the VPC over HTTPS only."
  }
}

run "closed_to_all_but_the_named_ranges" {
  variables {
    allowed_cidrs = ["203.0.113.0/24", "198.51.100.0/24"]
  }
  assert {
    condition     = toset([for r in aws_vpc_security_group_ingress_rule.edge : r.cidr_ipv4]) == toset(["203.0.113.0/24", "198.51.100.0/24"])
    error_message = "Only the named ranges come in."
  }
}

# ---------------------------------------------------------------- refusals: one bad value, one clear error
run "name_in_capitals" {
  command = plan

  variables {
    name = "Mesh"
  }
  expect_failures = [var.name]
}

run "tag_of_aws" {
  command = plan

  variables {
    tags = { "aws:x" = "y" }
  }
  expect_failures = [var.tags]
}

run "vpc_not_an_id" {
  command = plan

  variables {
    vpc_id = "main"
  }
  expect_failures = [var.vpc_id]
}

run "ranges_bad" {
  command = plan

  variables {
    allowed_cidrs = ["10.0.0.0/33"]
  }
  expect_failures = [var.allowed_cidrs]
}

run "ranges_empty" {
  command = plan

  variables {
    allowed_cidrs = []
  }
  expect_failures = [var.allowed_cidrs]
}

run "port_of_root" {
  command = plan

  variables {
    ports = { http = 80 }
  }
  expect_failures = [var.ports]
}

run "ports_the_same" {
  command = plan

  variables {
    ports = { http = 8000, grpc = 8000 }
  }
  expect_failures = [var.ports]
}
