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
}

variables {
  name = "mesh-test"
}

run "a_key_for_each_purpose" {
  assert {
    condition     = toset(keys(aws_kms_key.this)) == toset(["storage", "ebs", "redis", "logs", "events"])
    error_message = "Five purposes, five keys."
  }
  assert {
    condition     = alltrue([for k in aws_kms_key.this : k.enable_key_rotation && k.deletion_window_in_days == 30])
    error_message = "Keys rotate and can be saved for 30 days."
  }
  assert {
    condition = alltrue(flatten([for k in aws_kms_key.this : [for s in jsondecode(k.policy).Statement :
      s.Principal != "*" && try(s.Principal.AWS, "") != "*"
    ]]))
    error_message = "No key policy names everybody."
  }
  assert {
    condition = alltrue(flatten([for k in aws_kms_key.this : [for s in jsondecode(k.policy).Statement :
      s.Action != "kms:*" || s.Sid == "AccountDecidesThroughIam"
    ]]))
    error_message = "Only the delegation to the account's IAM holds kms:*."
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

run "rotation_too_often" {
  command = plan

  variables {
    rotation_period_days = 30
  }
  expect_failures = [var.rotation_period_days]
}

run "deletion_too_soon" {
  command = plan

  variables {
    deletion_window_days = 1
  }
  expect_failures = [var.deletion_window_days]
}
