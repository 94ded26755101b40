mock_provider "aws" {
  mock_data "aws_secretsmanager_secret_version" {
    defaults = { secret_string = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL" }
  }
}

# The module that makes the password is set aside here (and tests/infra lays a stand-in over it: mock providers know
# no ephemeral resources).
override_module {
  target  = module.password
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mesh/redis-abc", version_id = "v1" }
}

variables {
  name               = "mesh-test"
  node_type          = "cache.r7g.large"
  replicas           = 2
  subnet_ids         = ["subnet-a", "subnet-b", "subnet-c"]
  security_group_ids = ["sg-redis"]
  kms_key_arn        = "arn:aws:kms:eu-central-1:123456789012:key/redis"
  secret_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/storage"
  log_kms_key_arn    = "arn:aws:kms:eu-central-1:123456789012:key/logs"
}

run "three_nodes_sealed_and_never_evicting" {
  assert {
    condition     = aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.automatic_failover_enabled && aws_elasticache_replication_group.this.num_cache_clusters == 3
    error_message = "A primary and two replicas, with failover over the zones."
  }
  assert {
    condition     = aws_elasticache_replication_group.this.transit_encryption_mode == "required" && tobool(aws_elasticache_replication_group.this.at_rest_encryption_enabled) && aws_elasticache_replication_group.this.kms_key_id == var.kms_key_arn
    error_message = "TLS is required; data at rest has our key."
  }
  assert {
    condition     = contains([for p in aws_elasticache_parameter_group.this.parameter : p.value if p.name == "maxmemory-policy"], "noeviction")
    error_message = "Redis refuses writes rather than evict Ray's tables."
  }
  assert {
    condition     = startswith(aws_elasticache_user.default.access_string, "off") && strcontains(aws_elasticache_user.mesh.access_string, "-@dangerous")
    error_message = "The default user is off, ours cannot flush."
  }
  assert {
    condition     = aws_elasticache_replication_group.this.snapshot_retention_limit == 7 && aws_elasticache_replication_group.this.final_snapshot_identifier == "mesh-test-final"
    error_message = "Daily snapshots, and a last one."
  }
}

run "alone" {
  variables {
    replicas       = 0
    final_snapshot = false
  }
  assert {
    condition     = !aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.num_cache_clusters == 1 && aws_elasticache_replication_group.this.final_snapshot_identifier == null
    error_message = "One node has no failover."
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

run "kms_key_arn_not_a_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.kms_key_arn]
}

run "secret_kms_key_arn_not_a_key" {
  command = plan

  variables {
    secret_kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.secret_kms_key_arn]
}

run "log_kms_key_arn_not_a_key" {
  command = plan

  variables {
    log_kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.log_kms_key_arn]
}

run "one_subnet" {
  command = plan

  variables {
    subnet_ids = ["subnet-a"]
  }
  expect_failures = [var.subnet_ids]
}

run "no_group" {
  command = plan

  variables {
    security_group_ids = []
  }
  expect_failures = [var.security_group_ids]
}

run "node_type_without_cache" {
  command = plan

  variables {
    node_type = "r7g.large"
  }
  expect_failures = [var.node_type]
}

run "six_replicas" {
  command = plan

  variables {
    replicas = 6
  }
  expect_failures = [var.replicas]
}

run "port_of_root" {
  command = plan

  variables {
    port = 443
  }
  expect_failures = [var.port]
}

run "no_snapshots" {
  command = plan

  variables {
    snapshot_retention_days = 0
  }
  expect_failures = [var.snapshot_retention_days]
}

run "generation_zero" {
  command = plan

  variables {
    password_generation = 0
  }
  expect_failures = [var.password_generation]
}

run "recovery_of_three_days" {
  command = plan

  variables {
    secret_recovery_window_days = 3
  }
  expect_failures = [var.secret_recovery_window_days]
}

run "log_days_not_a_step" {
  command = plan

  variables {
    log_retention_days = 200
  }
  expect_failures = [var.log_retention_days]
}
