mock_provider "aws" {
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-central-1:123456789012:mock", url = "https://sqs.example/mock" }
  }
  mock_resource "aws_cloudwatch_event_rule" {
    defaults = { arn = "arn:aws:events:eu-central-1:123456789012:rule/mock" }
  }
}

variables {
  name        = "mesh-test"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/events"
}

run "three_signals_one_queue" {
  assert {
    condition     = toset(keys(aws_cloudwatch_event_rule.this)) == toset(["interruption", "rebalance", "lifecycle"])
    error_message = "Interruption, rebalance and lifecycle actions are heard."
  }
  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.this["lifecycle"].event_pattern).detail.AutoScalingGroupName[0].prefix == "mesh-test-"
    error_message = "Only our groups' lifecycle actions are heard."
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.events.redrive_policy).maxReceiveCount == 4 && aws_sqs_queue.events.message_retention_seconds == 300
    error_message = "What nobody can handle goes to the dead letters; old notices die."
  }
  assert {
    condition     = aws_sqs_queue.events.kms_master_key_id == var.kms_key_arn && aws_sqs_queue.dead.kms_master_key_id == var.kms_key_arn
    error_message = "Both queues are sealed with our key."
  }
  assert {
    condition     = alltrue([for t in aws_cloudwatch_event_target.queue : t.dead_letter_config[0].arn != "" && t.retry_policy[0].maximum_event_age_in_seconds == 120])
    error_message = "EventBridge retries for as long as a notice lives."
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

run "events_outlive_sense" {
  command = plan

  variables {
    message_retention_s = 86400
  }
  expect_failures = [var.message_retention_s]
}

run "visibility_too_long" {
  command = plan

  variables {
    visibility_timeout_s = 120
  }
  expect_failures = [var.visibility_timeout_s]
}

run "one_try" {
  command = plan

  variables {
    max_receive_count = 1
  }
  expect_failures = [var.max_receive_count]
}
