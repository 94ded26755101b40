mock_provider "aws" {
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:mock" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
}

variables {
  name               = "mesh-test"
  cidr               = "10.40.0.0/16"
  availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  kms_key_arn        = "arn:aws:kms:eu-central-1:123456789012:key/logs"
}

run "three_zones_with_three_kinds_of_subnet" {
  assert {
    condition     = length(aws_subnet.public) == 3 && length(aws_subnet.private) == 3 && length(aws_subnet.data) == 3
    error_message = "Each zone has a public, a private and a data subnet."
  }
  assert {
    condition     = aws_subnet.private["eu-central-1b"].cidr_block == "10.40.32.0/19" && aws_subnet.public["eu-central-1a"].cidr_block == "10.40.128.0/22" && aws_subnet.data["eu-central-1c"].cidr_block == "10.40.168.0/22"
    error_message = "Nodes get the lower half of the block; nothing overlaps."
  }
  assert {
    condition     = alltrue([for s in concat(values(aws_subnet.public), values(aws_subnet.private), values(aws_subnet.data)) : s.map_public_ip_on_launch == false])
    error_message = "No subnet hands out public addresses."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3 && length(aws_route.private_internet) == 3
    error_message = "Each zone has its own way out."
  }
  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default security group is closed."
  }
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.retention_in_days == 365
    error_message = "All traffic is logged for a year."
  }
  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && alltrue([for e in aws_vpc_endpoint.interface : e.private_dns_enabled])
    error_message = "S3 has a gateway endpoint; the others answer under their public names."
  }
}

run "one_gateway_for_all" {
  variables {
    nat_gateways = "single"
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.private_internet) == 3
    error_message = "One gateway serves every zone."
  }
}

run "no_internet_at_all" {
  variables {
    nat_gateways = "none"
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.private_internet) == 0
    error_message = "Private subnets have no route out."
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

run "cidr_is_no_address" {
  command = plan

  variables {
    cidr = "10.40.0.0"
  }
  expect_failures = [var.cidr]
}

run "cidr_with_host_bits" {
  command = plan

  variables {
    cidr = "10.40.0.1/16"
  }
  expect_failures = [var.cidr]
}

run "cidr_too_small" {
  command = plan

  variables {
    cidr = "10.40.0.0/24"
  }
  expect_failures = [var.cidr]
}

run "cidr_nonsense" {
  command = plan

  variables {
    cidr = "300.1.0.0/16"
  }
  expect_failures = [var.cidr]
}

run "one_zone" {
  command = plan

  variables {
    availability_zones = ["eu-central-1a"]
  }
  expect_failures = [var.availability_zones]
}

run "the_same_zone_twice" {
  command = plan

  variables {
    availability_zones = ["eu-central-1a", "eu-central-1a"]
  }
  expect_failures = [var.availability_zones]
}

run "nat_unknown" {
  command = plan

  variables {
    nat_gateways = "two"
  }
  expect_failures = [var.nat_gateways]
}

run "s3_as_interface_endpoint" {
  command = plan

  variables {
    interface_endpoints = ["s3"]
  }
  expect_failures = [var.interface_endpoints]
}

run "flow_logs_too_short" {
  command = plan

  variables {
    flow_log_retention_days = 30
  }
  expect_failures = [var.flow_log_retention_days]
}

run "kms_key_arn_not_a_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.kms_key_arn]
}

run "boundary_not_a_policy" {
  command = plan

  variables {
    permissions_boundary_arn = "admin"
  }
  expect_failures = [var.permissions_boundary_arn]
}
