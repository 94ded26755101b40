# The whole installation, in the order a request would meet it read backwards. The environments give values
# to this one composition and contain nothing else, so that dev and prod cannot drift apart in shape.

module "kms" {
  source = "../kms"

  name                 = var.name
  deletion_window_days = var.retention.kms_deletion_window_days
  tags                 = var.tags
}

module "network" {
  source = "../network"

  name                     = var.name
  cidr                     = var.network.cidr
  availability_zones       = var.network.availability_zones
  nat_gateways             = var.network.nat_gateways
  interface_endpoints      = var.network.interface_endpoints
  flow_log_retention_days  = var.retention.log_days
  kms_key_arn              = module.kms.key_arns.logs
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

module "security" {
  source = "../security"

  name          = var.name
  vpc_id        = module.network.vpc_id
  allowed_cidrs = var.edge.allowed_cidrs
  tags          = var.tags
}

module "storage" {
  source = "../storage"

  providers = {
    aws         = aws
    aws.replica = aws.replica
  }

  name                     = var.name
  kms_key_arn              = module.kms.key_arns.storage
  replica                  = var.replica_region == null ? null : { region = var.replica_region, kms_deletion_window_days = var.retention.kms_deletion_window_days }
  sessions_retention_days  = var.retention.session_days
  logs_retention_days      = var.retention.log_days
  force_destroy            = !var.protect
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

module "redis" {
  source = "../redis"

  name                        = var.name
  node_type                   = var.redis.node_type
  replicas                    = var.redis.replicas
  port                        = module.security.ports.redis
  subnet_ids                  = values(module.network.data_subnet_ids)
  security_group_ids          = [module.security.group_ids.redis]
  kms_key_arn                 = module.kms.key_arns.redis
  secret_kms_key_arn          = module.kms.key_arns.storage
  log_kms_key_arn             = module.kms.key_arns.logs
  snapshot_retention_days     = var.redis.snapshot_retention_days
  final_snapshot              = var.protect
  secret_recovery_window_days = var.protect ? 30 : 0
  log_retention_days          = var.retention.log_days
  tags                        = var.tags
}

module "spot_events" {
  source = "../spot_events"

  name        = var.name
  kms_key_arn = module.kms.key_arns.events
  tags        = var.tags
}

module "edge" {
  source = "../edge"

  name                = var.name
  vpc_id              = module.network.vpc_id
  internal            = var.edge.internal
  subnet_ids          = values(var.edge.internal ? module.network.private_subnet_ids : module.network.public_subnet_ids)
  security_group_ids  = [module.security.group_ids.edge]
  ports               = { http = module.security.ports.http, grpc = module.security.ports.grpc }
  certificate_arn     = var.edge.certificate_arn
  public_dns          = var.edge.public_dns
  rate_limits         = var.edge.rate_limits
  access_log_bucket   = module.storage.access_log_bucket
  log_kms_key_arn     = module.kms.key_arns.logs
  log_retention_days  = var.retention.log_days
  deletion_protection = var.protect
  tags                = var.tags
}

module "iam" {
  source = "../iam"

  name = var.name
  bucket_arns = {
    models   = module.storage.bucket_arns.models
    sessions = module.storage.bucket_arns.sessions
    logs     = module.storage.bucket_arns.logs
  }
  kms_key_arns             = { storage = module.kms.key_arns.storage, events = module.kms.key_arns.events }
  secret_arns              = { ray_token = module.ray_cluster.ray_token_secret_arn, redis = module.redis.password_secret_arn }
  node_events_queue_arn    = module.spot_events.queue_arn
  head_dns                 = { zone_arn = module.ray_cluster.zone_arn, record = module.ray_cluster.head_host }
  prometheus_workspace_arn = module.observability.prometheus_workspace_arn
  session_manager          = var.session_manager
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

module "ray_cluster" {
  source = "../ray_cluster"

  name       = var.name
  vpc_id     = module.network.vpc_id
  subnet_ids = module.network.private_subnet_ids
  security_group_ids = {
    node    = module.security.group_ids.node
    ingress = module.security.group_ids.ingress
    efa     = module.security.group_ids.efa
  }
  instance_profile_names = module.iam.instance_profile_names
  pools                  = var.pools
  internal_domain        = var.internal_domain
  redis = {
    host       = module.redis.primary_endpoint
    port       = module.redis.port
    username   = module.redis.username
    secret_arn = module.redis.password_secret_arn
  }
  node_events_queue_url = module.spot_events.queue_url
  target_group_arns     = values(module.edge.target_group_arns)
  models                = var.models
  release               = var.release
  telemetry = {
    remote_write_url = module.observability.prometheus_remote_write_url
    log_group        = module.observability.log_group_names.ray
  }
  volume_kms_key_arn          = module.kms.key_arns.ebs
  secret_kms_key_arn          = module.kms.key_arns.storage
  service_linked_role_arn     = module.kms.autoscaling_role_arn
  secret_recovery_window_days = var.protect ? 30 : 0
  force_delete                = !var.protect
  tags                        = var.tags
}

module "observability" {
  source = "../observability"

  name                       = var.name
  log_kms_key_arn            = module.kms.key_arns.logs
  topic_kms_key_arn          = module.kms.key_arns.events
  log_retention_days         = var.retention.log_days
  alarm_emails               = var.alarm_emails
  load_balancer_dimension    = module.edge.load_balancer_dimension
  target_group_dimensions    = module.edge.target_group_dimensions
  node_events_queue_name     = module.spot_events.queue_name
  dead_letter_queue_name     = module.spot_events.dead_letter_queue_name
  redis_replication_group_id = module.redis.replication_group_id
  # Names, not outputs of the groups: the groups' nodes need this module's addresses first.
  asg_floors       = { for pool, p in var.pools : pool => { name = "${var.name}-${pool}", min_size = p.capacity.min_size } }
  prometheus_rules = var.prometheus_rules
  tags             = var.tags
}
