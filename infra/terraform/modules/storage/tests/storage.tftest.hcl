mock_provider "aws" {
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws" }
  }
  override_data {
    target = data.aws_caller_identity.current
    values = { account_id = "123456789012" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mock" }
  }
}

mock_provider "aws" {
  alias = "replica"
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mock-replica" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/replica" }
  }
}

variables {
  name        = "mesh-test"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/storage"
  replica     = { region = "eu-west-1" }
}

run "sealed_versioned_and_copied" {
  assert {
    condition     = alltrue([for b in aws_s3_bucket_server_side_encryption_configuration.private : one(b.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"])
    error_message = "Models, sessions and logs are sealed with our key."
  }
  assert {
    condition     = alltrue([for v in concat(values(aws_s3_bucket_versioning.this), values(aws_s3_bucket_versioning.replica)) : v.versioning_configuration[0].status == "Enabled"])
    error_message = "Every bucket and every copy keeps versions."
  }
  assert {
    condition     = alltrue([for b in concat(values(aws_s3_bucket_public_access_block.this), values(aws_s3_bucket_public_access_block.replica)) : b.block_public_acls && b.block_public_policy && b.ignore_public_acls && b.restrict_public_buckets])
    error_message = "No bucket can be made public."
  }
  assert {
    condition     = toset(keys(aws_s3_bucket_replication_configuration.this)) == toset(["models", "sessions", "logs"])
    error_message = "Three buckets have a copy in the other region."
  }
  assert {
    condition     = alltrue([for p in aws_s3_bucket_policy.this : anytrue([for s in jsondecode(p.policy).Statement : s.Effect == "Deny" && try(s.Condition.Bool["aws:SecureTransport"] == "false", false)])])
    error_message = "Every bucket refuses plain HTTP."
  }
  assert {
    condition     = aws_s3_bucket.this["models"].bucket == "mesh-test-models-123456789012-eu-central-1" && aws_s3_bucket.this["models"].force_destroy == false
    error_message = "Names hold account and region; full buckets survive a destroy."
  }
}

run "no_copy" {
  variables {
    replica = null
  }
  assert {
    condition     = length(aws_s3_bucket.replica) == 0 && length(aws_iam_role.replication) == 0 && length(aws_kms_key.replica) == 0
    error_message = "Without a replica nothing of it is made."
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

run "boundary_not_a_policy" {
  command = plan

  variables {
    permissions_boundary_arn = "admin"
  }
  expect_failures = [var.permissions_boundary_arn]
}

run "replica_region_nonsense" {
  command = plan

  variables {
    replica = { region = "europe" }
  }
  expect_failures = [var.replica]
}

run "replica_key_gone_too_soon" {
  command = plan

  variables {
    replica = { region = "eu-west-1", kms_deletion_window_days = 1 }
  }
  expect_failures = [var.replica]
}

run "sessions_forever" {
  command = plan

  variables {
    sessions_retention_days = 0
  }
  expect_failures = [var.sessions_retention_days]
}

run "logs_under_six_months" {
  command = plan

  variables {
    logs_retention_days = 90
  }
  expect_failures = [var.logs_retention_days]
}

run "no_way_back" {
  command = plan

  variables {
    noncurrent_days = 0
  }
  expect_failures = [var.noncurrent_days]
}
