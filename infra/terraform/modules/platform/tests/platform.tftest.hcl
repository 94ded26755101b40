# Every refusal: one bad value, one clear error at plan time. The messages are in variables.tf.

mock_provider "aws" {}

mock_provider "aws" {
  alias = "replica"
}

variables {
  name            = "mesh-test"
  network         = { cidr = "10.40.0.0/16", availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  edge            = { certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/abc" }
  redis           = { node_type = "cache.r7g.large", replicas = 2 }
  internal_domain = "test.mesh.internal"
  alarm_emails    = ["oncall@example.org"]
  pools = {
    head     = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
    spot     = { tier = "spot", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], diversification_waiver = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", capacity = { min_size = 0, max_size = 4, on_demand_percentage = 0 }, fallback_pool = "fallback" }
    fallback = { tier = "fallback", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], capacity = { min_size = 0, max_size = 4, on_demand_percentage = 100 } }
  }
}

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

run "one_zone" {
  command = plan

  variables {
    network = { cidr = "10.40.0.0/16", availability_zones = ["eu-central-1a"] }
  }
  expect_failures = [var.network]
}

run "certificate_not_in_acm" {
  command = plan

  variables {
    edge = { certificate_arn = "x" }
  }
  expect_failures = [var.edge]
}

run "redis_without_replica" {
  command = plan

  variables {
    redis = { node_type = "cache.r7g.large", replicas = 0 }
  }
  expect_failures = [var.redis]
}

run "one_pool" {
  command = plan

  variables {
    pools = {
      head = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
    }
  }
  expect_failures = [var.pools]
}

run "logs_under_six_months" {
  command = plan

  variables {
    retention = { log_days = 30 }
  }
  expect_failures = [var.retention]
}

run "replica_region_nonsense" {
  command = plan

  variables {
    replica_region = "europe"
  }
  expect_failures = [var.replica_region]
}

run "domain_of_one_label" {
  command = plan

  variables {
    internal_domain = "internal"
  }
  expect_failures = [var.internal_domain]
}

run "model_not_in_s3" {
  command = plan

  variables {
    models = [{ name = "m", s3_uri = "https://x" }]
  }
  expect_failures = [var.models]
}

run "release_without_hash" {
  command = plan

  variables {
    release = { s3_uri = "s3://b/r.tar.gz", sha256 = "x" }
  }
  expect_failures = [var.release]
}

run "alarms_nobody_hears" {
  command = plan

  variables {
    alarm_emails = []
  }
  expect_failures = [var.alarm_emails]
}

run "rules_without_groups" {
  command = plan

  variables {
    prometheus_rules = { mesh = "alerts: []" }
  }
  expect_failures = [var.prometheus_rules]
}

run "boundary_not_a_policy" {
  command = plan

  variables {
    permissions_boundary_arn = "admin"
  }
  expect_failures = [var.permissions_boundary_arn]
}
