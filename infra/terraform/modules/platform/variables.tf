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

variable "network" {
  description = "The VPC: block, zones, ways out."
  type = object({
    cidr                = string
    availability_zones  = list(string)
    nat_gateways        = optional(string, "per_az")
    interface_endpoints = optional(set(string), ["autoscaling", "ec2", "kms", "logs", "monitoring", "secretsmanager", "sqs", "ssm", "ssmmessages", "sts"])
  })
  nullable = false

  validation {
    condition     = length(var.network.availability_zones) >= 2
    error_message = "Give network.availability_zones 2 or more zones; production uses 3."
  }
}

variable "edge" {
  description = "The door: certificate, who may come, how often."
  type = object({
    certificate_arn = string
    internal        = optional(bool, false)
    allowed_cidrs   = optional(list(string), ["0.0.0.0/0"])
    public_dns      = optional(object({ zone_id = string, name = string }))
    rate_limits = optional(object({
      per_address = optional(number, 2000)
      per_key     = optional(number, 6000)
      window_s    = optional(number, 60)
    }), {})
  })
  nullable = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:", var.edge.certificate_arn))
    error_message = "Set edge.certificate_arn to an ACM certificate of this region; docs/runbooks/deploy-aws.md shows how to request one."
  }
}

variable "redis" {
  description = "Size of Redis."
  type = object({
    node_type               = string
    replicas                = number
    snapshot_retention_days = optional(number, 7)
  })
  nullable = false

  validation {
    condition     = var.redis.replicas >= 1 || !var.protect
    error_message = "Give redis.replicas 1 or more where protect is on: without a replica a lost node loses Ray's tables."
  }
}

variable "pools" {
  description = "The pools of nodes; modules/ray_cluster documents each field."
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
    condition     = length(var.pools) >= 2
    error_message = "Give pools at least two entries: the head, and one that runs engines."
  }
}

variable "retention" {
  description = "How long things are kept, in days."
  type = object({
    log_days                 = optional(number, 365)
    session_days             = optional(number, 30)
    kms_deletion_window_days = optional(number, 30)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.retention.log_days >= 180
    error_message = "Set retention.log_days to 180 or more: MLPS 2.0 asks for six months."
  }
}

variable "replica_region" {
  description = "Region of provider `aws.replica` that keeps a copy of the buckets, or null."
  type        = string
  default     = null

  validation {
    condition     = var.replica_region == null || can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.replica_region))
    error_message = "Set replica_region to an AWS region, for example eu-west-1, or null."
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

variable "models" {
  description = "Weights that GPU nodes fetch before they serve."
  type        = list(object({ name = string, s3_uri = string }))
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for m in var.models : startswith(m.s3_uri, "s3://")])
    error_message = "Begin the s3_uri of each of models with s3://."
  }
}

variable "release" {
  description = "Wheel bundle that nodes install at boot, or null where the image has it."
  type        = object({ s3_uri = string, sha256 = string })
  default     = null

  validation {
    condition     = var.release == null || try(length(var.release.sha256) == 64, false)
    error_message = "Give release.sha256 the 64 hex digits that `sha256sum` prints."
  }
}

variable "alarm_emails" {
  description = "Addresses that alarms go to."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.alarm_emails) > 0 || !var.protect
    error_message = "Give alarm_emails at least one address where protect is on: an alarm that nobody hears is none."
  }
}

variable "prometheus_rules" {
  description = "Rule files by name, as YAML text."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for r in values(var.prometheus_rules) : can(yamldecode(r).groups)])
    error_message = "Give each of prometheus_rules the text of a Prometheus rule file: YAML with a list `groups`."
  }
}

variable "session_manager" {
  description = "Whether operators may open recorded shells on nodes."
  type        = bool
  default     = true
  nullable    = false
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary put on every role, or null."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::.*:policy/", var.permissions_boundary_arn))
    error_message = "Set permissions_boundary_arn to the ARN of an IAM policy, or leave it null."
  }
}

variable "protect" {
  description = "Whether data and doors refuse to be destroyed: deletion protection, final snapshot, full buckets kept."
  type        = bool
  default     = true
  nullable    = false
}
