# Three roles, one per kind of node, and what each may do, sentence by sentence:
#   worker   runs engines: reads weights, answers its own lifecycle hooks
#   ingress  runs gateways: also reads the Redis password, keeps sessions, appends audit logs
#   head     runs the GCS and the pool controller: also reads the event queue and resizes our groups
# Auto Scaling and EC2 "Describe" calls take no resource, hence their Resource "*"; everything else is
# named. No role may touch IAM, another installation's groups, or delete from the logs bucket.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name
  groups_arn = "arn:${local.partition}:autoscaling:${local.region}:${local.account_id}:autoScalingGroup:*:autoScalingGroupName/${var.name}-*"

  sentences = {
    read_weights = [
      {
        Sid      = "ListWeights"
        Effect   = "Allow"
        Action   = ["s3:ListBucket", "s3:GetBucketLocation"]
        Resource = [var.bucket_arns.models]
      },
      {
        Sid      = "ReadWeights"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:GetObjectVersion"]
        Resource = ["${var.bucket_arns.models}/*"]
      },
    ]
    read_ray_token = [{
      Sid      = "ReadRayToken"
      Effect   = "Allow"
      Action   = ["secretsmanager:GetSecretValue"]
      Resource = [var.secret_arns.ray_token]
    }]
    read_redis_password = [{
      Sid      = "ReadRedisPassword"
      Effect   = "Allow"
      Action   = ["secretsmanager:GetSecretValue"]
      Resource = [var.secret_arns.redis]
    }]
    open_sealed_data = [{
      Sid      = "OpenSealedData"
      Effect   = "Allow"
      Action   = ["kms:Decrypt"]
      Resource = [var.kms_key_arns.storage]
      Condition = { StringEquals = { "kms:ViaService" = [
        "s3.${local.region}.amazonaws.com", "secretsmanager.${local.region}.amazonaws.com",
      ] } }
    }]
    seal_data = [{
      Sid       = "SealData"
      Effect    = "Allow"
      Action    = ["kms:GenerateDataKey"]
      Resource  = [var.kms_key_arns.storage]
      Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
    }]
    answer_hooks = [
      {
        Sid      = "AnswerLifecycleHooks"
        Effect   = "Allow"
        Action   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
        Resource = [local.groups_arn]
      },
      {
        Sid      = "SeeOwnGroup"
        Effect   = "Allow"
        Action   = ["autoscaling:DescribeAutoScalingInstances"]
        Resource = ["*"]
      },
    ]
    write_telemetry = concat([
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
        Resource = ["arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:/${var.name}/*"]
      },
      {
        Sid       = "WriteMetrics"
        Effect    = "Allow"
        Action    = ["cloudwatch:PutMetricData"]
        Resource  = ["*"]
        Condition = { StringEquals = { "cloudwatch:namespace" = "ExpertMesh/${var.name}" } }
      },
      ], var.prometheus_workspace_arn == null ? [] : [{
        Sid      = "WritePrometheus"
        Effect   = "Allow"
        Action   = ["aps:RemoteWrite"]
        Resource = [var.prometheus_workspace_arn]
    }])
    keep_sessions = [{
      Sid      = "KeepSessions"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"]
      Resource = ["${var.bucket_arns.sessions}/*"]
      }, {
      Sid      = "ListSessions"
      Effect   = "Allow"
      Action   = ["s3:ListBucket", "s3:ListBucketVersions"]
      Resource = [var.bucket_arns.sessions]
    }]
    append_audit = [{
      Sid      = "AppendAudit"
      Effect   = "Allow"
      Action   = ["s3:PutObject"]
      Resource = ["${var.bucket_arns.logs}/audit/*"]
    }]
    read_node_events = [
      {
        Sid      = "ReadNodeEvents"
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
        Resource = [var.node_events_queue_arn]
      },
      {
        Sid       = "OpenNodeEvents"
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = [var.kms_key_arns.events]
        Condition = { StringEquals = { "kms:ViaService" = "sqs.${local.region}.amazonaws.com" } }
      },
    ]
    resize_pools = [
      {
        Sid      = "ResizeOurPools"
        Effect   = "Allow"
        Action   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup", "autoscaling:SetInstanceProtection"]
        Resource = [local.groups_arn]
      },
      {
        Sid      = "SeePools"
        Effect   = "Allow"
        Action   = ["autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeScalingActivities", "ec2:DescribeInstances", "ec2:DescribeInstanceStatus"]
        Resource = ["*"]
      },
    ]
    name_head = [{
      Sid      = "PointHeadNameAtThisNode"
      Effect   = "Allow"
      Action   = ["route53:ChangeResourceRecordSets"]
      Resource = [var.head_dns.zone_arn]
      Condition = { "ForAllValues:StringEquals" = {
        "route53:ChangeResourceRecordSetsNormalizedRecordNames" = [var.head_dns.record]
        "route53:ChangeResourceRecordSetsRecordTypes"           = ["A"]
        "route53:ChangeResourceRecordSetsActions"               = ["UPSERT"]
      } }
    }]
  }

  may = {
    worker = ["read_weights", "read_ray_token", "open_sealed_data", "answer_hooks", "write_telemetry"]
    ingress = [
      "read_weights", "read_ray_token", "read_redis_password", "open_sealed_data", "seal_data", "answer_hooks",
      "write_telemetry", "keep_sessions", "append_audit",
    ]
    head = [
      "read_weights", "read_ray_token", "read_redis_password", "open_sealed_data", "seal_data", "answer_hooks",
      "write_telemetry", "keep_sessions", "append_audit", "read_node_events", "resize_pools", "name_head",
    ]
  }
}

resource "aws_iam_role" "this" {
  for_each = local.may

  name                 = "${var.name}-${each.key}"
  description          = "${var.name}: ${each.key} nodes"
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })

  tags = var.tags
}

resource "aws_iam_role_policy" "this" {
  for_each = local.may

  name = "mesh"
  role = aws_iam_role.this[each.key].id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat([for sentence in each.value : local.sentences[sentence]]...)
  })
}

# A shell on a node goes through Session Manager (recorded, no open port, no SSH key) or not at all.
resource "aws_iam_role_policy_attachment" "session_manager" {
  for_each = var.session_manager ? local.may : {}

  role       = aws_iam_role.this[each.key].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "this" {
  for_each = local.may

  name = "${var.name}-${each.key}"
  role = aws_iam_role.this[each.key].name

  tags = var.tags
}
