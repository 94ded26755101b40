# Seeing it run: log groups, a Prometheus workspace with recording and alert rules, CloudWatch alarms on
# what AWS alone can see, one topic that wakes people, one dashboard.

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

locals {
  log_groups = toset(["gateway", "ray", "engine", "audit"])
}

resource "aws_cloudwatch_log_group" "this" {
  for_each = local.log_groups

  name              = "/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_kms_key_arn

  tags = var.tags
}

# ---------------------------------------------------------------- waking people
resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.topic_kms_key_arn

  tags = var.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AlarmsPublish"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
        Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
      },
      {
        Sid       = "OnlyTls"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.alarms.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

# ---------------------------------------------------------------- alarms
locals {
  lb = { LoadBalancer = var.load_balancer_dimension }

  edge_alarms = {
    errors = {
      why        = "The load balancer answers 5xx: no gateway was there to answer."
      namespace  = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", statistic = "Sum", percentile = null
      dimensions = local.lb, threshold = 5, periods = 2, comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
    mean-response = {
      why        = "The mean response takes over a second (time to the first byte, as the load balancer sees it)."
      namespace  = "AWS/ApplicationELB", metric = "TargetResponseTime", statistic = "Average", percentile = null
      dimensions = local.lb, threshold = 1, periods = 5, comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
    p99-response = {
      why        = "One response in a hundred takes longer than the limit."
      namespace  = "AWS/ApplicationELB", metric = "TargetResponseTime", statistic = null, percentile = "p99"
      dimensions = local.lb, threshold = var.p99_response_s, periods = 5, comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
    unhealthy-gateways = {
      why        = "A gateway fails its health check."
      namespace  = "AWS/ApplicationELB", metric = "UnHealthyHostCount", statistic = "Maximum", percentile = null
      dimensions = merge(local.lb, { TargetGroup = var.target_group_dimensions.http }), threshold = 0, periods = 3
      comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
  }

  event_alarms = {
    events-unread = {
      why        = "Spot and lifecycle events wait for half a minute: the head does not listen."
      namespace  = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", statistic = "Maximum", percentile = null
      dimensions = { QueueName = var.node_events_queue_name }, threshold = 30, periods = 2, comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
    events-dead = {
      why        = "An event about a node could not be handled and lies in the dead-letter queue."
      namespace  = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", statistic = "Maximum", percentile = null
      dimensions = { QueueName = var.dead_letter_queue_name }, threshold = 0, periods = 1, comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
  }

  redis_alarms = {
    redis-memory = {
      why        = "Redis is four fifths full, and it refuses writes rather than evict."
      namespace  = "AWS/ElastiCache", metric = "DatabaseMemoryUsagePercentage", statistic = "Maximum", percentile = null
      dimensions = { ReplicationGroupId = var.redis_replication_group_id }, threshold = 80, periods = 5, comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
    redis-cpu = {
      why        = "Redis' one thread is nearly busy all the time."
      namespace  = "AWS/ElastiCache", metric = "EngineCPUUtilization", statistic = "Maximum", percentile = null
      dimensions = { ReplicationGroupId = var.redis_replication_group_id }, threshold = 80, periods = 5, comparison = "GreaterThanThreshold", missing = "notBreaching"
    }
  }

  pool_alarms = { for pool, asg in var.asg_floors : "pool-${pool}-short" => {
    why        = "Pool ${pool} has fewer nodes in service than its floor of ${asg.min_size}."
    namespace  = "AWS/AutoScaling", metric = "GroupInServiceInstances", statistic = "Minimum", percentile = null
    dimensions = { AutoScalingGroupName = asg.name }, threshold = asg.min_size, periods = 10, comparison = "LessThanThreshold", missing = "breaching"
  } if asg.min_size > 0 }

  alarms = merge(local.edge_alarms, local.event_alarms, local.redis_alarms, local.pool_alarms)
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.why
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  extended_statistic  = each.value.percentile
  dimensions          = each.value.dimensions
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.periods
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  tags = var.tags
}

# ---------------------------------------------------------------- dashboard
resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [
      {
        type = "metric", x = 0, y = 0, width = 12, height = 6
        properties = {
          title = "Requests and errors", region = data.aws_region.current.name, stat = "Sum", period = 60
          metrics = [
            ["AWS/ApplicationELB", "RequestCount", "LoadBalancer", var.load_balancer_dimension],
            [".", "HTTPCode_ELB_5XX_Count", ".", "."],
            [".", "HTTPCode_Target_5XX_Count", ".", "."],
          ]
        }
      },
      {
        type = "metric", x = 12, y = 0, width = 12, height = 6
        properties = {
          title = "Time to the first byte", region = data.aws_region.current.name, period = 60
          metrics = [for stat in ["p50", "p95", "p99"] :
            ["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", var.load_balancer_dimension, { stat = stat }]
          ]
        }
      },
      {
        type = "metric", x = 0, y = 6, width = 12, height = 6
        properties = {
          title = "Nodes in service by pool", region = data.aws_region.current.name, stat = "Average", period = 60
          metrics = [for pool, asg in var.asg_floors :
            ["AWS/AutoScaling", "GroupInServiceInstances", "AutoScalingGroupName", asg.name, { label = pool }]
          ]
        }
      },
      {
        type = "metric", x = 12, y = 6, width = 12, height = 6
        properties = {
          title = "Node events: waiting and dead", region = data.aws_region.current.name, stat = "Maximum", period = 60
          metrics = [
            ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", var.node_events_queue_name],
            ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", var.dead_letter_queue_name],
          ]
        }
      },
    ]
  })
}
