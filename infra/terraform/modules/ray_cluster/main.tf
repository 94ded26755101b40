# The Ray cluster: one head that Auto Scaling replaces and Redis remembers for, the name under which nodes
# find it, the token that lets them in, and the pools.

data "aws_region" "current" {}

locals {
  head_record = "head.${var.internal_domain}"
  profile_of  = { head = "head", ingress = "ingress", spot = "worker", fallback = "worker", vip = "worker" }

  # A pool that names no zones uses all of them.
  zones_of = { for pool, p in var.pools : pool => p.zones == null ? var.subnet_ids : { for z in p.zones : z => var.subnet_ids[z] } }
  groups_of = { for pool, p in var.pools : pool => concat(
    [var.security_group_ids.node],
    contains(["head", "ingress"], p.tier) && p.ingress ? [var.security_group_ids.ingress] : [],
    p.efa_interfaces > 0 ? [var.security_group_ids.efa] : [],
  ) }

  # Gateways are placed by this label: only these nodes are behind the load balancer.
  labels_of = { for pool, p in var.pools : pool => merge(p.ingress ? { "expertmesh.io/ingress" = "true" } : {}, p.labels) }

  # The controller's view of the pools, for the head alone. Sizes are not in it: the controller reads them off the
  # groups, and a changed size must not change the head's user data, which would replace the head.
  pool_plans = { for pool, p in var.pools : pool => {
    asg         = "${var.name}-${pool}"
    tier        = p.tier
    group_nodes = p.expert_group.nodes
    fallback    = p.fallback_pool
  } }

  # What each kind of node is told: only the head hears of the queue and the pools, only the head and the
  # gateways of Redis.
  facts_of = { for pool, p in var.pools : pool => {
    region                = data.aws_region.current.name
    head_host             = local.head_record
    gcs_port              = var.gcs_port
    ray_token_secret_arn  = module.ray_token.arn
    models                = var.models
    telemetry             = var.telemetry
    redis                 = contains(["head", "ingress"], p.tier) ? var.redis : null
    head_zone_id          = p.tier == "head" ? aws_route53_zone.internal.zone_id : null
    node_events_queue_url = p.tier == "head" ? var.node_events_queue_url : null
    pools                 = p.tier == "head" ? jsonencode(local.pool_plans) : null
  } }
}

# Ray's own authentication (RAY_AUTH_MODE=token): whoever lacks it cannot submit code to the cluster.
module "ray_token" {
  source = "../secret"

  name                 = var.name
  purpose              = "ray-token"
  description          = "Token that every Ray node and driver presents."
  kms_key_arn          = var.secret_kms_key_arn
  generation           = var.ray_token_generation
  recovery_window_days = var.secret_recovery_window_days
  tags                 = var.tags
}

# The head writes its own A record when it boots (its role may do just that), so Terraform keeps none.
resource "aws_route53_zone" "internal" {
  name          = var.internal_domain
  comment       = "${var.name}: names inside the VPC"
  force_destroy = true

  vpc {
    vpc_id = var.vpc_id
  }

  tags = var.tags
}

module "pool" {
  source   = "../node_pool"
  for_each = var.pools

  name                        = var.name
  pool                        = each.key
  tier                        = each.value.tier
  capacity                    = each.value.capacity
  instance_types              = each.value.instance_types
  diversification_waiver      = each.value.diversification_waiver
  expert_group                = each.value.expert_group
  efa_interfaces              = each.value.efa_interfaces
  reserved_instances_per_zone = each.value.reserved_instances_per_zone
  drain                       = each.value.drain
  join_timeout_s              = each.value.join_timeout_s
  max_instance_lifetime_days  = each.value.max_instance_lifetime_days
  ami_id                      = each.value.ami_id
  root_volume                 = each.value.root_volume
  labels                      = local.labels_of[each.key]
  subnet_ids                  = local.zones_of[each.key]
  security_group_ids          = local.groups_of[each.key]
  instance_profile_name       = var.instance_profile_names[local.profile_of[each.value.tier]]
  kms_key_arn                 = var.volume_kms_key_arn
  service_linked_role_arn     = var.service_linked_role_arn
  target_group_arns           = each.value.ingress ? var.target_group_arns : []
  node_facts                  = local.facts_of[each.key]
  release                     = var.release
  force_delete                = var.force_delete
  tags                        = var.tags
}
