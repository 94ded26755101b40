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
  bucket_arns = {
    models   = "arn:aws:s3:::mesh-models"
    sessions = "arn:aws:s3:::mesh-sessions"
    logs     = "arn:aws:s3:::mesh-logs"
  }
  kms_key_arns = {
    storage = "arn:aws:kms:eu-central-1:123456789012:key/storage"
    events  = "arn:aws:kms:eu-central-1:123456789012:key/events"
  }
  secret_arns = {
    ray_token = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mesh/ray-token-abc"
    redis     = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mesh/redis-abc"
  }
  node_events_queue_arn    = "arn:aws:sqs:eu-central-1:123456789012:mesh-node-events"
  head_dns                 = { zone_arn = "arn:aws:route53:::hostedzone/Z1", record = "head.mesh.internal" }
  prometheus_workspace_arn = "arn:aws:aps:eu-central-1:123456789012:workspace/ws-1"
}

run "three_roles_and_no_wildcard_action" {
  assert {
    condition     = toset(keys(aws_iam_role.this)) == toset(["head", "ingress", "worker"])
    error_message = "Head, gateways and engines have roles of their own."
  }
  assert {
    condition = alltrue(flatten([for p in aws_iam_role_policy.this : [for s in jsondecode(p.policy).Statement :
      [for a in s.Action : !strcontains(a, "*")]
    ]]))
    error_message = "Every action is spelled out."
  }
  assert {
    condition = alltrue(flatten([for p in aws_iam_role_policy.this : [for s in jsondecode(p.policy).Statement :
      !contains(s.Resource, "*") || alltrue([for a in s.Action : strcontains(a, ":Describe")]) || s.Sid == "WriteMetrics"
    ]]))
    error_message = "Only calls that take no resource, and metrics of our namespace, have Resource \"*\"."
  }
  assert {
    condition = alltrue(flatten([for p in aws_iam_role_policy.this : [for s in jsondecode(p.policy).Statement :
      [for a in s.Action : !startswith(a, "iam:") && !startswith(a, "sts:")]
    ]]))
    error_message = "No node may touch IAM."
  }
}

run "a_worker_cannot_do_what_only_the_head_does" {
  assert {
    condition = length(setintersection(
      toset(flatten([for s in jsondecode(aws_iam_role_policy.this["worker"].policy).Statement : s.Action])),
      toset(["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup", "sqs:ReceiveMessage", "route53:ChangeResourceRecordSets", "s3:PutObject", "s3:DeleteObject"]),
    )) == 0
    error_message = "Workers neither resize pools, read events, name the head, nor write to buckets."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.this["worker"].policy, "mesh/redis")
    error_message = "Workers do not read the Redis password."
  }
}

run "no_shells" {
  variables {
    session_manager          = false
    prometheus_workspace_arn = null
  }
  assert {
    condition     = length(aws_iam_role_policy_attachment.session_manager) == 0
    error_message = "Without Session Manager nothing is attached."
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

run "bucket_wildcard" {
  command = plan

  variables {
    bucket_arns = { models = "arn:aws:s3:::*", sessions = "arn:aws:s3:::s", logs = "arn:aws:s3:::l" }
  }
  expect_failures = [var.bucket_arns]
}

run "key_wildcard" {
  command = plan

  variables {
    kms_key_arns = { storage = "*", events = "*" }
  }
  expect_failures = [var.kms_key_arns]
}

run "secret_wildcard" {
  command = plan

  variables {
    secret_arns = { ray_token = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:*", redis = "*" }
  }
  expect_failures = [var.secret_arns]
}

run "queue_wildcard" {
  command = plan

  variables {
    node_events_queue_arn = "arn:aws:sqs:eu-central-1:123456789012:*"
  }
  expect_failures = [var.node_events_queue_arn]
}

run "zone_wildcard" {
  command = plan

  variables {
    head_dns = { zone_arn = "arn:aws:route53:::hostedzone/*", record = "head.mesh.internal" }
  }
  expect_failures = [var.head_dns]
}

run "record_with_a_dot_at_the_end" {
  command = plan

  variables {
    head_dns = { zone_arn = "arn:aws:route53:::hostedzone/Z1", record = "head.mesh.internal." }
  }
  expect_failures = [var.head_dns]
}

run "workspace_not_an_arn" {
  command = plan

  variables {
    prometheus_workspace_arn = "ws-1"
  }
  expect_failures = [var.prometheus_workspace_arn]
}

run "boundary_not_a_policy" {
  command = plan

  variables {
    permissions_boundary_arn = "admin"
  }
  expect_failures = [var.permissions_boundary_arn]
}
