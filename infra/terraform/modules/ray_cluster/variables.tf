variable "name" {
  description = "Name of the installation; it prefixes every resource (for example `expertmesh-prod`)."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "Set name to 3-22 characters of a-z, 0-9 and '-', starting with a letter and not ending in '-' (load balancer names stop at 32 characters)."
  }
}

variable "tags" {
  description = "Tags put on every resource of the module."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for k in keys(var.tags) : !startswith(lower(k), "aws:")])
    error_message = "Remove tag keys that begin with 'aws:': AWS reserves them."
  }
}

variable "vpc_id" {
  description = "VPC of the cluster."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^vpc-", var.vpc_id))
    error_message = "Set vpc_id to the id of a VPC (vpc-...)."
  }
}

variable "subnet_ids" {
  description = "Private subnets by availability zone."
  type        = map(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Give subnet_ids in at least 2 availability zones."
  }
}

variable "security_group_ids" {
  description = "Groups of the security module by role."
  type = object({
    node    = string
    ingress = string
    efa     = string
  })
  nullable = false

  validation {
    condition     = alltrue([for g in values(var.security_group_ids) : length(g) > 0])
    error_message = "Set each of security_group_ids (node, ingress, efa) to a group of the security module."
  }
}

variable "instance_profile_names" {
  description = "Profiles of the iam module by kind of node."
  type = object({
    head    = string
    ingress = string
    worker  = string
  })
  nullable = false

  validation {
    condition     = length(distinct(values(var.instance_profile_names))) == 3
    error_message = "Give head, ingress and worker three different instance_profile_names: a worker must not hold the head's rights."
  }
}

variable "pools" {
  description = "The pools by name: one of tier head, and any number of ingress, spot, fallback and vip."
  type = map(object({
    tier           = string
    ami_id         = string
    instance_types = list(string)
    capacity = object({
      min_size             = number
      max_size             = number
      initial_size         = optional(number)
      on_demand_base       = optional(number, 0)
      on_demand_percentage = number
    })
    zones                       = optional(list(string))
    diversification_waiver      = optional(string)
    expert_group                = optional(object({ nodes = optional(number, 1), spot_reason = optional(string) }), {})
    efa_interfaces              = optional(number, 0)
    reserved_instances_per_zone = optional(number, 0)
    fallback_pool               = optional(string)
    ingress                     = optional(bool, false)
    drain = optional(object({
      drain_seconds               = optional(number, 105)
      graceful_shutdown_timeout_s = optional(number, 40)
      replica_start_s             = optional(number, 60)
    }), {})
    join_timeout_s             = optional(number, 900)
    max_instance_lifetime_days = optional(number)
    root_volume = optional(object({
      device_name      = optional(string, "/dev/sda1")
      size_gib         = optional(number, 200)
      iops             = optional(number, 3000)
      throughput_mib_s = optional(number, 250)
    }), {})
    labels = optional(map(string), {})
  }))
  nullable = false

  validation {
    condition     = length([for p in var.pools : p if p.tier == "head"]) == 1
    error_message = "Give pools exactly one entry of tier head: a Ray cluster has one head."
  }

  validation {
    condition     = anytrue([for p in var.pools : p.ingress])
    error_message = "Set ingress = true on at least one of pools (tier ingress, or the head in a small installation): the load balancer needs targets."
  }

  validation {
    condition     = alltrue([for p in var.pools : p.zones == null || try(alltrue([for z in p.zones : contains(keys(var.subnet_ids), z)]), false)])
    error_message = "Name in the zones of pools only availability zones that the network has subnets in."
  }

  validation {
    condition     = alltrue([for p in var.pools : p.fallback_pool == null || try(var.pools[p.fallback_pool].tier == "fallback", false)])
    error_message = "Point fallback_pool of pools at a pool of tier fallback."
  }

  validation {
    condition     = alltrue([for p in var.pools : p.fallback_pool != null if p.tier == "spot"])
    error_message = "Give each spot pool a fallback_pool: when spot stays short, somebody must take over."
  }

  validation {
    condition     = alltrue([for p in var.pools : p.fallback_pool == null || try(var.pools[p.fallback_pool].expert_group.nodes == p.expert_group.nodes, false)])
    error_message = "Give a spot pool and its fallback_pool the same expert_group.nodes: the one must be able to replace the other's groups."
  }
}

variable "gcs_port" {
  description = "Port of Ray's GCS on the head."
  type        = number
  default     = 6380
  nullable    = false

  validation {
    condition     = var.gcs_port >= 1024 && var.gcs_port <= 65535
    error_message = "Set gcs_port between 1024 and 65535."
  }
}

variable "internal_domain" {
  description = "Private DNS zone in which the head has its name."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.internal_domain))
    error_message = "Set internal_domain to a lower-case domain of two labels or more, for example prod.expertmesh.internal."
  }
}

variable "redis" {
  description = "Redis that keeps Ray's tables (outputs of the redis module)."
  type = object({
    host       = string
    port       = number
    username   = string
    secret_arn = string
  })
  nullable = false

  validation {
    condition     = length(var.redis.host) > 0 && length(var.redis.secret_arn) > 0
    error_message = "Set redis.host and redis.secret_arn: without Redis a lost head loses the cluster."
  }
}

variable "node_events_queue_url" {
  description = "Queue of the spot_events module."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^https?://", var.node_events_queue_url))
    error_message = "Set node_events_queue_url to the URL of the spot_events module's queue."
  }
}

variable "target_group_arns" {
  description = "Target groups of the edge module that ingress pools join."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.target_group_arns) > 0
    error_message = "Give target_group_arns the edge module's groups (HTTP and gRPC)."
  }
}

variable "models" {
  description = "Weights that GPU nodes fetch before they serve."
  type        = list(object({ name = string, s3_uri = string }))
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for m in var.models : can(regex("^s3://[a-z0-9.-]+/.+[^/]$", m.s3_uri)) && can(regex("^[A-Za-z0-9._-]+$", m.name))])
    error_message = "Give each of models a name of letters, digits, '.', '_', '-' and an s3_uri s3://bucket/prefix without a slash at the end."
  }
}

variable "telemetry" {
  description = "Where nodes send metrics and logs."
  type = object({
    remote_write_url = optional(string)
    log_group        = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.telemetry.remote_write_url == null || can(regex("^https://", var.telemetry.remote_write_url))
    error_message = "Set telemetry.remote_write_url to an https:// URL, or leave it out."
  }
}

variable "release" {
  description = "Wheel bundle that nodes install at boot, or null where the image has it."
  type        = object({ s3_uri = string, sha256 = string })
  default     = null

  validation {
    condition     = var.release == null || try(can(regex("^s3://[a-z0-9.-]+/.+\\.tar\\.gz$", var.release.s3_uri)) && can(regex("^[0-9a-f]{64}$", var.release.sha256)), false)
    error_message = "Set release.s3_uri to s3://bucket/path.tar.gz and release.sha256 to its 64 hex digits."
  }
}

variable "volume_kms_key_arn" {
  description = "KMS key of the nodes' volumes."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.volume_kms_key_arn))
    error_message = "Set volume_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "secret_kms_key_arn" {
  description = "KMS key of the Ray token."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.secret_kms_key_arn))
    error_message = "Set secret_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "service_linked_role_arn" {
  description = "Auto Scaling's role that may use the volume key."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::", var.service_linked_role_arn))
    error_message = "Set service_linked_role_arn to the kms module's autoscaling_role_arn."
  }
}

variable "ray_token_generation" {
  description = "Raise by one to replace Ray's token; nodes take it up when they are next replaced."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.ray_token_generation >= 1 && floor(var.ray_token_generation) == var.ray_token_generation
    error_message = "Set ray_token_generation to a whole number from 1 up."
  }
}

variable "secret_recovery_window_days" {
  description = "Days a deleted token can be brought back; 0 deletes at once."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.secret_recovery_window_days == 0 || (var.secret_recovery_window_days >= 7 && var.secret_recovery_window_days <= 30)
    error_message = "Set secret_recovery_window_days to 0 or between 7 and 30 (the limits of Secrets Manager)."
  }
}

variable "force_delete" {
  description = "Whether `terraform destroy` ends nodes at once instead of draining each."
  type        = bool
  default     = false
  nullable    = false
}
