# The managed Prometheus that nodes write to. Alert rules come from the file that `make` checks and that a
# home-grown Prometheus would load as well; this module only carries them there.

resource "aws_cloudwatch_log_group" "prometheus" {
  name              = "/aws/vendedlogs/prometheus/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_kms_key_arn

  tags = var.tags
}

resource "aws_prometheus_workspace" "this" {
  alias       = var.name
  kms_key_arn = var.workspace_kms_key_arn

  logging_configuration {
    log_group_arn = "${aws_cloudwatch_log_group.prometheus.arn}:*"
  }

  tags = var.tags
}

resource "aws_prometheus_rule_group_namespace" "this" {
  for_each = var.prometheus_rules

  name         = each.key
  workspace_id = aws_prometheus_workspace.this.id
  data         = each.value
}
