# Every refusal: one bad value, one clear error at plan time. The messages are in variables.tf.

mock_provider "aws" {}

variables {
  name        = "mesh-test"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/storage"
  purpose     = "token"
  description = "Token that the tests present."
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

run "kms_key_arn_not_a_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.kms_key_arn]
}

run "purpose_with_a_slash" {
  command = plan

  variables {
    purpose = "a/b"
  }
  expect_failures = [var.purpose]
}

run "description_too_short" {
  command = plan

  variables {
    description = "x"
  }
  expect_failures = [var.description]
}

run "length_under_256_bits" {
  command = plan

  variables {
    length = 16
  }
  expect_failures = [var.length]
}

run "generation_zero" {
  command = plan

  variables {
    generation = 0
  }
  expect_failures = [var.generation]
}

run "recovery_of_three_days" {
  command = plan

  variables {
    recovery_window_days = 3
  }
  expect_failures = [var.recovery_window_days]
}
