mock_provider "aws" {
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
  override_data {
    target = data.aws_caller_identity.current
    values = { account_id = "123456789012" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-central-1:123456789012:mock" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:mock" }
  }
}

variables {
  name                       = "mesh-test"
  log_kms_key_arn            = "arn:aws:kms:eu-central-1:123456789012:key/logs"
  topic_kms_key_arn          = "arn:aws:kms:eu-central-1:123456789012:key/events"
  load_balancer_dimension    = "app/mesh-test/1"
  target_group_dimensions    = { http = "targetgroup/http/1", grpc = "targetgroup/grpc/1" }
  node_events_queue_name     = "mesh-test-node-events"
  dead_letter_queue_name     = "mesh-test-node-events-dead"
  redis_replication_group_id = "mesh-test"
  asg_floors                 = { head = { name = "mesh-test-head", min_size = 1 }, gpu-spot = { name = "mesh-test-gpu-spot", min_size = 0 } }
  alarm_emails               = ["oncall@example.org"]
  prometheus_rules           = { mesh = "groups:\n  - name: mesh\n    rules: []\n" }
}

run "everything_that_can_break_wakes_somebody" {
  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset(["errors", "mean-response", "p99-response", "unhealthy-gateways", "events-unread", "events-dead", "redis-memory", "redis-cpu", "pool-head-short"])
    error_message = "An alarm for each failure, and none for a pool that may be empty."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["mean-response"].threshold == 1 && aws_cloudwatch_metric_alarm.this["events-dead"].threshold == 0
    error_message = "Mean response over a second; any dead letter."
  }
  assert {
    condition     = length(aws_sns_topic_subscription.email) == 1 && aws_sns_topic.alarms.kms_master_key_id == var.topic_kms_key_arn
    error_message = "Alarms reach a person through a sealed topic."
  }
  assert {
    condition     = alltrue([for g in aws_cloudwatch_log_group.this : g.retention_in_days == 365 && g.kms_key_id == var.log_kms_key_arn])
    error_message = "Logs are sealed and kept for a year."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == 4 && length(aws_prometheus_rule_group_namespace.this) == 1
    error_message = "One dashboard of four pictures; the rule file reaches Prometheus."
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

run "log_kms_key_arn_not_a_key" {
  command = plan

  variables {
    log_kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.log_kms_key_arn]
}

run "topic_kms_key_arn_not_a_key" {
  command = plan

  variables {
    topic_kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.topic_kms_key_arn]
}

run "workspace_kms_key_arn_not_a_key" {
  command = plan

  variables {
    workspace_kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.workspace_kms_key_arn]
}

run "log_days_not_a_step" {
  command = plan

  variables {
    log_retention_days = 200
  }
  expect_failures = [var.log_retention_days]
}

run "not_an_address" {
  command = plan

  variables {
    alarm_emails = ["oncall"]
  }
  expect_failures = [var.alarm_emails]
}

run "no_load_balancer" {
  command = plan

  variables {
    load_balancer_dimension = ""
  }
  expect_failures = [var.load_balancer_dimension]
}

run "no_target_group" {
  command = plan

  variables {
    target_group_dimensions = { http = "", grpc = "" }
  }
  expect_failures = [var.target_group_dimensions]
}

run "no_queue" {
  command = plan

  variables {
    node_events_queue_name = ""
  }
  expect_failures = [var.node_events_queue_name]
}

run "no_dead_letters" {
  command = plan

  variables {
    dead_letter_queue_name = ""
  }
  expect_failures = [var.dead_letter_queue_name]
}

run "no_redis" {
  command = plan

  variables {
    redis_replication_group_id = ""
  }
  expect_failures = [var.redis_replication_group_id]
}

run "floor_below_zero" {
  command = plan

  variables {
    asg_floors = { head = { name = "x", min_size = -1 } }
  }
  expect_failures = [var.asg_floors]
}

run "p99_of_nothing" {
  command = plan

  variables {
    p99_response_s = 0
  }
  expect_failures = [var.p99_response_s]
}

run "rules_without_groups" {
  command = plan

  variables {
    prometheus_rules = { mesh = "alerts: []" }
  }
  expect_failures = [var.prometheus_rules]
}
