# The mesh's memory and Ray's: response cache, limits, sessions, and the tables of Ray's GCS, which let a
# new head take over a running cluster. Hence `noeviction`: Redis must refuse a write rather than drop one
# of Ray's tables; the response cache bounds itself by TTL and size.

module "password" {
  source = "../secret"

  name                 = var.name
  purpose              = "redis"
  description          = "Password of the mesh's Redis user; read by the head and the gateways."
  kms_key_arn          = var.secret_kms_key_arn
  generation           = var.password_generation
  recovery_window_days = var.secret_recovery_window_days
  tags                 = var.tags
}

# Provider 5.100 has no write-only password for ElastiCache users, so that this one value does reach the
# state, marked sensitive. The README says how the state is kept.
data "aws_secretsmanager_secret_version" "password" {
  secret_id  = module.password.arn
  version_id = module.password.version_id
}

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Data subnets of ${var.name}"
  subnet_ids  = var.subnet_ids

  tags = var.tags
}

resource "aws_elasticache_parameter_group" "this" {
  name        = "${var.name}-redis7"
  family      = "redis7"
  description = "${var.name}: refuse writes when full, never evict"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }

  tags = var.tags

  lifecycle {
    create_before_destroy = true
  }
}

# Every user group needs a user named `default`; ours is switched off.
resource "aws_elasticache_user" "default" {
  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~* -@all"

  authentication_mode {
    type = "no-password-required"
  }

  tags = var.tags
}

resource "aws_elasticache_user" "mesh" {
  user_id       = "${var.name}-mesh"
  user_name     = "mesh"
  engine        = "redis"
  access_string = "on ~* &* +@all -@admin -@dangerous +info +cluster|info +cluster|nodes +cluster|slots"

  authentication_mode {
    type      = "password"
    passwords = [data.aws_secretsmanager_secret_version.password.secret_string]
  }

  tags = var.tags
}

resource "aws_elasticache_user_group" "this" {
  user_group_id = var.name
  engine        = "redis"
  user_ids      = [aws_elasticache_user.default.user_id, aws_elasticache_user.mesh.user_id]

  tags = var.tags
}

resource "aws_cloudwatch_log_group" "slow" {
  name              = "/${var.name}/redis-slow"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_kms_key_arn

  tags = var.tags
}

resource "aws_elasticache_replication_group" "this" {
  # checkov:skip=CKV2_AWS_50:failover follows `replicas`: on in prod, off in dev's single node
  replication_group_id = var.name
  description          = "${var.name}: cache, limits, sessions and Ray's tables"

  engine               = "redis"
  engine_version       = "7.1"
  node_type            = var.node_type
  num_cache_clusters   = var.replicas + 1
  port                 = var.port
  parameter_group_name = aws_elasticache_parameter_group.this.name
  subnet_group_name    = aws_elasticache_subnet_group.this.name
  security_group_ids   = var.security_group_ids

  multi_az_enabled           = var.replicas > 0
  automatic_failover_enabled = var.replicas > 0

  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  user_group_ids             = [aws_elasticache_user_group.this.user_group_id]

  snapshot_retention_limit   = var.snapshot_retention_days
  snapshot_window            = "03:00-04:00"
  maintenance_window         = "sun:04:30-sun:05:30"
  final_snapshot_identifier  = var.final_snapshot ? "${var.name}-final" : null
  auto_minor_version_upgrade = true
  apply_immediately          = var.apply_immediately

  log_delivery_configuration {
    destination      = aws_cloudwatch_log_group.slow.name
    destination_type = "cloudwatch-logs"
    log_format       = "json"
    log_type         = "slow-log"
  }

  tags = var.tags
}
