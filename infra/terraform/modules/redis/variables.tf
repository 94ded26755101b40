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

variable "kms_key_arn" {
  description = "KMS key for data at rest and snapshots."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Set kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "secret_kms_key_arn" {
  description = "KMS key for the password in Secrets Manager."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.secret_kms_key_arn))
    error_message = "Set secret_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "log_kms_key_arn" {
  description = "KMS key for the slow log; its policy must allow CloudWatch Logs."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.log_kms_key_arn))
    error_message = "Set log_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "subnet_ids" {
  description = "Data subnets, one per availability zone."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Give subnet_ids in at least 2 availability zones: a failover needs a second zone to go to."
  }
}

variable "security_group_ids" {
  description = "Security groups of the nodes of Redis."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.security_group_ids) > 0
    error_message = "Give at least one of security_group_ids; without one AWS attaches the VPC's default group, which is closed."
  }
}

variable "node_type" {
  description = "ElastiCache node type."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^cache\\.[a-z0-9]+\\.[a-z0-9]+$", var.node_type))
    error_message = "Set node_type to an ElastiCache type such as cache.r7g.large (note the 'cache.' in front)."
  }
}

variable "replicas" {
  description = "Replicas beside the primary; 0 means no failover (development only)."
  type        = number
  nullable    = false

  validation {
    condition     = var.replicas >= 0 && var.replicas <= 5 && floor(var.replicas) == var.replicas
    error_message = "Set replicas to a whole number from 0 to 5; 2 put one node in each of three zones."
  }
}

variable "port" {
  description = "TLS port of Redis."
  type        = number
  default     = 6379
  nullable    = false

  validation {
    condition     = var.port >= 1024 && var.port <= 65535
    error_message = "Set port between 1024 and 65535."
  }
}

variable "snapshot_retention_days" {
  description = "Days that daily snapshots are kept."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.snapshot_retention_days >= 1 && var.snapshot_retention_days <= 35
    error_message = "Set snapshot_retention_days between 1 and 35: Ray's tables and sessions need a snapshot to come back from."
  }
}

variable "final_snapshot" {
  description = "Whether `terraform destroy` leaves a last snapshot behind."
  type        = bool
  default     = true
  nullable    = false
}

variable "apply_immediately" {
  description = "Whether changes are made at once instead of in the maintenance window."
  type        = bool
  default     = false
  nullable    = false
}

variable "password_generation" {
  description = "Raise by one to replace the password."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.password_generation >= 1 && floor(var.password_generation) == var.password_generation
    error_message = "Set password_generation to a whole number from 1 up."
  }
}

variable "secret_recovery_window_days" {
  description = "Days a deleted password can be brought back; 0 deletes at once."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.secret_recovery_window_days == 0 || (var.secret_recovery_window_days >= 7 && var.secret_recovery_window_days <= 30)
    error_message = "Set secret_recovery_window_days to 0 or between 7 and 30 (the limits of Secrets Manager)."
  }
}

variable "log_retention_days" {
  description = "Days that the slow log is kept."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([180, 365, 400, 545, 731, 1096, 1827], var.log_retention_days)
    error_message = "Set log_retention_days to 180, 365, 400, 545, 731, 1096 or 1827 (CloudWatch's steps, six months or more)."
  }
}
