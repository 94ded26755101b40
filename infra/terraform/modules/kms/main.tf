# One customer key per purpose, so that a grant on logs never opens the weights.
#   storage  buckets and secrets      ebs     node volumes (Auto Scaling attaches them)
#   redis    cache at rest            logs    CloudWatch log groups
#   events   queues and the alarm topic
# Policies are built here and nowhere else: the account's IAM decides for its own principals, services
# get the least they need, bound to this account.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name

  delegate_to_iam = {
    Sid       = "AccountDecidesThroughIam"
    Effect    = "Allow"
    Principal = { AWS = "arn:${local.partition}:iam::${local.account_id}:root" }
    Action    = "kms:*"
    Resource  = "*"
  }
  data_actions = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]

  service_statements = {
    storage = []
    redis   = []
    ebs = [
      {
        Sid       = "AutoScalingUsesVolumes"
        Effect    = "Allow"
        Principal = { AWS = aws_iam_service_linked_role.autoscaling.arn }
        Action    = local.data_actions
        Resource  = "*"
      },
      {
        Sid       = "AutoScalingGrantsToVolumes"
        Effect    = "Allow"
        Principal = { AWS = aws_iam_service_linked_role.autoscaling.arn }
        Action    = "kms:CreateGrant"
        Resource  = "*"
        Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
      },
    ]
    logs = [{
      Sid       = "CloudWatchLogs"
      Effect    = "Allow"
      Principal = { Service = "logs.${local.region}.amazonaws.com" }
      Action    = local.data_actions
      Resource  = "*"
      Condition = {
        ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:*" }
      }
    }]
    events = [{
      Sid       = "EventsAndAlarmsReachEncryptedQueues"
      Effect    = "Allow"
      Principal = { Service = ["events.amazonaws.com", "cloudwatch.amazonaws.com"] }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
      Resource  = "*"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account_id } }
    }]
  }
}

# A service-linked role of this installation's own: the account's shared one may not exist yet, and
# naming a missing principal in a key policy fails the apply.
resource "aws_iam_service_linked_role" "autoscaling" {
  aws_service_name = "autoscaling.amazonaws.com"
  custom_suffix    = var.name
  description      = "Auto Scaling for ${var.name}: uses the volume key"

  tags = var.tags
}

resource "aws_kms_key" "this" {
  for_each = local.service_statements

  description             = "${var.name} ${each.key}"
  enable_key_rotation     = true
  rotation_period_in_days = var.rotation_period_days
  deletion_window_in_days = var.deletion_window_days
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat([local.delegate_to_iam], each.value)
  })

  tags = merge(var.tags, { Name = "${var.name}-${each.key}", Purpose = each.key })
}

resource "aws_kms_alias" "this" {
  for_each = aws_kms_key.this

  name          = "alias/${var.name}/${each.key}"
  target_key_id = each.value.key_id
}
