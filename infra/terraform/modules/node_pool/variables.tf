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

variable "pool" {
  description = "Name of the pool (for example `gpu-spot`)."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.pool))
    error_message = "Set pool to 3-24 characters of a-z, 0-9 and '-', starting with a letter."
  }
}

variable "tier" {
  description = "What the pool is for: head, ingress, spot, fallback or vip."
  type        = string
  nullable    = false

  validation {
    condition     = contains(["head", "ingress", "spot", "fallback", "vip"], var.tier)
    error_message = "Set tier to head, ingress, spot, fallback or vip."
  }
}

variable "capacity" {
  description = "Sizes of the group; on_demand_base nodes are on-demand always, and of the rest on_demand_percentage."
  type = object({
    min_size             = number
    max_size             = number
    initial_size         = optional(number)
    on_demand_base       = optional(number, 0)
    on_demand_percentage = number
  })
  nullable = false

  validation {
    condition     = var.capacity.min_size >= 0 && var.capacity.min_size <= var.capacity.max_size
    error_message = "Set capacity.min_size between 0 and capacity.max_size."
  }

  validation {
    condition     = var.capacity.initial_size == null || try(var.capacity.initial_size >= var.capacity.min_size && var.capacity.initial_size <= var.capacity.max_size, false)
    error_message = "Set capacity.initial_size between capacity.min_size and capacity.max_size, or leave it out."
  }

  validation {
    condition     = var.capacity.on_demand_percentage >= 0 && var.capacity.on_demand_percentage <= 100
    error_message = "Set capacity.on_demand_percentage between 0 (all spot) and 100 (no spot)."
  }

  validation {
    condition     = var.capacity.on_demand_base >= 0 && var.capacity.on_demand_base <= var.capacity.max_size
    error_message = "Set capacity.on_demand_base between 0 and capacity.max_size."
  }

  validation {
    condition     = !contains(["vip", "head", "ingress"], var.tier) || var.capacity.on_demand_percentage == 100
    error_message = "Set capacity.on_demand_percentage to 100: pools of tier vip, head and ingress are never on spot. Put what may be interrupted into a pool of tier spot."
  }

  validation {
    condition     = var.tier != "head" || var.capacity.max_size == 1
    error_message = "Set capacity.max_size to 1 for the head: a cluster has one; Auto Scaling replaces it and Redis keeps its tables."
  }
}

variable "instance_types" {
  description = "Instance types that may stand in for each other, the preferred one first."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.instance_types) > 0 && alltrue([for t in var.instance_types : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", t))])
    error_message = "Give at least one of instance_types, each like g5.12xlarge."
  }

  validation {
    condition     = length(distinct(var.instance_types)) == length(var.instance_types)
    error_message = "List each of instance_types once."
  }

  validation {
    condition     = var.capacity.on_demand_percentage == 100 || length(var.instance_types) >= 10 || try(length(trimspace(var.diversification_waiver)) >= 20, false)
    error_message = "Give a spot pool 10 or more instance_types (interruptions come type by type), or write the reason for fewer into diversification_waiver (20 characters or more)."
  }
}

variable "diversification_waiver" {
  description = "Why a spot pool has fewer than 10 instance types; null otherwise."
  type        = string
  default     = null

  validation {
    condition     = var.diversification_waiver == null || try(length(trimspace(var.diversification_waiver)) >= 20, false)
    error_message = "Write a real reason of at least 20 characters into diversification_waiver, or leave it null."
  }
}

variable "subnet_ids" {
  description = "Private subnets by availability zone."
  type        = map(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "Give subnet_ids at least one zone and subnet."
  }

  validation {
    condition     = var.capacity.on_demand_percentage == 100 || length(var.subnet_ids) >= 2 || var.expert_group.nodes > 1
    error_message = "Give a spot pool subnet_ids in 2 or more zones: spot capacity goes zone by zone."
  }

  validation {
    condition     = var.expert_group.nodes == 1 || length(var.subnet_ids) == 1
    error_message = "Give a pool with expert_group.nodes > 1 exactly one zone in subnet_ids: the ranks of a group talk at every token and live in one placement group."
  }

  validation {
    condition     = var.efa_interfaces == 0 || length(var.subnet_ids) == 1
    error_message = "Give a pool with EFA exactly one zone in subnet_ids: EFA does not cross subnets."
  }
}

variable "expert_group" {
  description = "Nodes that one expert group spans; spot_reason says why such a group may nevertheless be on spot."
  type = object({
    nodes       = optional(number, 1)
    spot_reason = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.expert_group.nodes >= 1 && var.expert_group.nodes <= 64 && floor(var.expert_group.nodes) == var.expert_group.nodes
    error_message = "Set expert_group.nodes to a whole number from 1 to 64."
  }

  validation {
    condition     = var.expert_group.nodes == 1 || var.capacity.on_demand_percentage == 100 || try(length(trimspace(var.expert_group.spot_reason)) >= 20, false)
    error_message = "Set capacity.on_demand_percentage to 100 for a pool whose expert groups span nodes (one interruption ends the whole group), or write the reason into expert_group.spot_reason (20 characters or more)."
  }

  validation {
    condition     = var.capacity.max_size % var.expert_group.nodes == 0 && var.capacity.min_size % var.expert_group.nodes == 0
    error_message = "Set capacity.min_size and capacity.max_size to multiples of expert_group.nodes: part of a group serves nobody."
  }
}

variable "efa_interfaces" {
  description = "EFA interfaces per node: 0 (none), 1 (g5.48xlarge), 4 (p4d), 32 (p5)."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.efa_interfaces >= 0 && var.efa_interfaces <= 32 && floor(var.efa_interfaces) == var.efa_interfaces
    error_message = "Set efa_interfaces to a whole number from 0 to 32."
  }

  validation {
    condition     = var.efa_interfaces == 0 || length(var.instance_types) == 1
    error_message = "Give a pool with EFA exactly one of instance_types: the number of network cards differs from type to type."
  }
}

variable "reserved_instances_per_zone" {
  description = "Instances of the first type reserved in each zone (paid for, used or not); for VIP pools."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.reserved_instances_per_zone >= 0 && floor(var.reserved_instances_per_zone) == var.reserved_instances_per_zone
    error_message = "Set reserved_instances_per_zone to a whole number from 0 up."
  }

  validation {
    condition     = var.reserved_instances_per_zone == 0 || var.capacity.on_demand_percentage == 100
    error_message = "Set capacity.on_demand_percentage to 100 for a pool with reserved_instances_per_zone: spot instances cannot use a reservation."
  }

  validation {
    condition     = var.reserved_instances_per_zone == 0 || length(var.instance_types) == 1
    error_message = "Give a pool with reserved_instances_per_zone exactly one of instance_types: a reservation holds one type."
  }
}

variable "drain" {
  description = "The end of a node's life, in seconds: graceful_shutdown_timeout_s + replica_start_s < drain_seconds <= 110."
  type = object({
    drain_seconds               = optional(number, 105)
    graceful_shutdown_timeout_s = optional(number, 40)
    replica_start_s             = optional(number, 60)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.drain.drain_seconds >= 20 && var.drain.drain_seconds <= 110
    error_message = "Set drain.drain_seconds between 20 and 110: AWS gives 120 s of notice, and 10 s of it go to noticing and to the last goodbye."
  }

  validation {
    condition     = var.drain.graceful_shutdown_timeout_s >= 1 && var.drain.graceful_shutdown_timeout_s < var.drain.drain_seconds
    error_message = "Set drain.graceful_shutdown_timeout_s below drain.drain_seconds: a replica must have finished before its node goes."
  }

  validation {
    # One mistake, one error: a time-out beyond the drain itself is the check above's business.
    condition     = var.drain.graceful_shutdown_timeout_s >= var.drain.drain_seconds || (var.drain.replica_start_s >= 1 && var.drain.graceful_shutdown_timeout_s + var.drain.replica_start_s < var.drain.drain_seconds)
    error_message = "Lower drain.graceful_shutdown_timeout_s or drain.replica_start_s: together they must stay below drain.drain_seconds, so that the replacement serves before the old replica stops."
  }
}

variable "join_timeout_s" {
  description = "Seconds a new node has to become healthy (weights included) before Auto Scaling gives it up."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.join_timeout_s >= 60 && var.join_timeout_s <= 7200
    error_message = "Set join_timeout_s between 60 and 7200 (the limit of a lifecycle hook)."
  }
}

variable "max_instance_lifetime_days" {
  description = "Days after which a node is replaced, or null."
  type        = number
  default     = null

  validation {
    condition     = var.max_instance_lifetime_days == null || try(var.max_instance_lifetime_days >= 1 && var.max_instance_lifetime_days <= 365, false)
    error_message = "Set max_instance_lifetime_days between 1 and 365, or leave it null."
  }
}

variable "ami_id" {
  description = "Image of the nodes: systemd, Python 3.11, the AWS CLI, and drivers for GPU types."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "Set ami_id to an image id (ami-...); docs/runbooks/deploy-aws.md shows how to look one up."
  }
}

variable "root_volume" {
  description = "The gp3 root volume."
  type = object({
    device_name      = optional(string, "/dev/sda1")
    size_gib         = optional(number, 200)
    iops             = optional(number, 3000)
    throughput_mib_s = optional(number, 250)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.root_volume.size_gib >= 30 && var.root_volume.size_gib <= 16384
    error_message = "Set root_volume.size_gib between 30 and 16384."
  }

  validation {
    condition     = var.root_volume.iops >= 3000 && var.root_volume.iops <= 16000 && var.root_volume.throughput_mib_s >= 125 && var.root_volume.throughput_mib_s <= 1000
    error_message = "Set root_volume.iops between 3000 and 16000 and root_volume.throughput_mib_s between 125 and 1000 (the limits of gp3)."
  }
}

variable "security_group_ids" {
  description = "Security groups of the nodes."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.security_group_ids) > 0
    error_message = "Give at least one of security_group_ids; without one EC2 attaches the VPC's default group, which is closed."
  }
}

variable "instance_profile_name" {
  description = "Instance profile of the nodes."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.instance_profile_name) > 0
    error_message = "Set instance_profile_name to one of the iam module's profiles."
  }
}

variable "kms_key_arn" {
  description = "KMS key of the volumes; its policy must allow service_linked_role_arn."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Set kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
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

variable "target_group_arns" {
  description = "Load balancer target groups that the nodes join (ingress pools)."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.target_group_arns) == 0 || contains(["ingress", "head"], var.tier)
    error_message = "Give target_group_arns only to pools of tier ingress or head: engines are not reached from outside."
  }
}

variable "node_facts" {
  description = "What every node of the cluster is told (head's name, ports, secret ARNs, models); never a secret itself."
  type = object({
    region               = string
    head_host            = string
    gcs_port             = number
    ray_token_secret_arn = string
    redis = optional(object({
      host       = string
      port       = number
      username   = string
      secret_arn = string
    }))
    head_zone_id          = optional(string)
    node_events_queue_url = optional(string)
    pools                 = optional(string)
    models                = optional(list(object({ name = string, s3_uri = string })), [])
    telemetry             = optional(object({ remote_write_url = optional(string), log_group = optional(string) }), {})
  })
  nullable = false

  validation {
    condition     = alltrue([for m in var.node_facts.models : can(regex("^s3://[a-z0-9.-]+/.+[^/]$", m.s3_uri))])
    error_message = "Set the s3_uri of each of node_facts.models to s3://bucket/prefix, without a slash at the end."
  }

  validation {
    condition     = var.node_facts.gcs_port >= 1024 && var.node_facts.gcs_port <= 65535
    error_message = "Set node_facts.gcs_port between 1024 and 65535."
  }

  validation {
    condition     = var.tier != "head" || (var.node_facts.redis != null && var.node_facts.head_zone_id != null && var.node_facts.node_events_queue_url != null)
    error_message = "Give the head's node_facts its redis, head_zone_id and node_events_queue_url: without them it cannot keep Ray's tables, be found, or hear of interruptions."
  }
}

variable "labels" {
  description = "Further Ray labels of the nodes."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for k, v in var.labels : can(regex("^[a-zA-Z0-9./_-]{1,63}$", k)) && can(regex("^[a-zA-Z0-9._-]{0,63}$", v)) && !startswith(k, "ray.io/")])
    error_message = "Write labels with keys and values of at most 63 letters, digits, '.', '_' and '-'; keys may hold '/', and 'ray.io/' belongs to Ray."
  }
}

variable "release" {
  description = "The wheel bundle that nodes install at boot, or null where the image has it."
  type = object({
    s3_uri = string
    sha256 = string
  })
  default = null

  validation {
    condition     = var.release == null || try(can(regex("^s3://[a-z0-9.-]+/.+\\.tar\\.gz$", var.release.s3_uri)) && can(regex("^[0-9a-f]{64}$", var.release.sha256)), false)
    error_message = "Set release.s3_uri to s3://bucket/path.tar.gz and release.sha256 to its 64 hex digits."
  }
}

variable "install_dir" {
  description = "Directory of the mesh's virtual environment on the node."
  type        = string
  default     = "/usr/local/lib/expertmesh"
  nullable    = false

  validation {
    condition     = can(regex("^/[A-Za-z0-9/_-]+[A-Za-z0-9]$", var.install_dir))
    error_message = "Set install_dir to an absolute path without spaces."
  }
}

variable "refresh_on_change" {
  description = "Whether a new launch template rolls through the running nodes, one drained node at a time."
  type        = bool
  default     = true
  nullable    = false
}

variable "force_delete" {
  description = "Whether `terraform destroy` ends nodes at once instead of draining each."
  type        = bool
  default     = false
  nullable    = false
}
