# AWS's signals about our nodes, in one queue that the head reads:
#   interruption warning        two minutes' notice
#   rebalance recommendation    earlier, without a deadline
#   lifecycle actions           Auto Scaling waits in a hook until somebody answers
# Each node also watches its own metadata; the queue is the second way, for a node that hangs.

locals {
  # EC2's two events name an instance, not its group, so they come for the whole account; the reader
  # drops instances it does not know. Lifecycle events are filtered by group.
  rules = {
    interruption = {
      description = "Spot interruption warning, two minutes ahead"
      pattern     = { source = ["aws.ec2"], "detail-type" = ["EC2 Spot Instance Interruption Warning"] }
    }
    rebalance = {
      description = "Spot rebalance recommendation"
      pattern     = { source = ["aws.ec2"], "detail-type" = ["EC2 Instance Rebalance Recommendation"] }
    }
    lifecycle = {
      description = "Auto Scaling waits in a join or drain hook"
      pattern = {
        source        = ["aws.autoscaling"]
        "detail-type" = ["EC2 Instance-launch Lifecycle Action", "EC2 Instance-terminate Lifecycle Action"]
        detail        = { AutoScalingGroupName = [{ prefix = "${var.name}-" }] }
      }
    }
  }
}

resource "aws_sqs_queue" "dead" {
  name                      = "${var.name}-node-events-dead"
  message_retention_seconds = 1209600
  kms_master_key_id         = var.kms_key_arn

  tags = var.tags
}

# A notice older than its two minutes is worth nothing: five minutes of retention are plenty, and a reader
# that comes back after an outage does not drain nodes that are long gone.
resource "aws_sqs_queue" "events" {
  name                       = "${var.name}-node-events"
  message_retention_seconds  = var.message_retention_s
  visibility_timeout_seconds = var.visibility_timeout_s
  receive_wait_time_seconds  = 20
  kms_master_key_id          = var.kms_key_arn

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = var.max_receive_count
  })

  tags = var.tags
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  queue_url = aws_sqs_queue.dead.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.events.arn]
  })
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = local.rules

  name          = "${var.name}-${each.key}"
  description   = each.value.description
  event_pattern = jsonencode(each.value.pattern)

  tags = var.tags
}

resource "aws_cloudwatch_event_target" "queue" {
  for_each = aws_cloudwatch_event_rule.this

  rule      = each.value.name
  target_id = "node-events"
  arn       = aws_sqs_queue.events.arn

  # EventBridge's own retries stop when the notice would be too late anyway.
  retry_policy {
    maximum_event_age_in_seconds = 120
    maximum_retry_attempts       = 20
  }
  dead_letter_config {
    arn = aws_sqs_queue.dead.arn
  }
}

locals {
  writers = { events = aws_sqs_queue.events, dead = aws_sqs_queue.dead }
}

resource "aws_sqs_queue_policy" "this" {
  for_each = local.writers

  queue_url = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "OurRulesWrite"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = each.value.arn
        Condition = { ArnEquals = { "aws:SourceArn" = [for rule in aws_cloudwatch_event_rule.this : rule.arn] } }
      },
      {
        Sid       = "OnlyTls"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "sqs:*"
        Resource  = each.value.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}
