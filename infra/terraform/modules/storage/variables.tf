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
  description = "KMS key of the models, sessions and logs buckets."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Set kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary put on the replication role, or null."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::.*:policy/", var.permissions_boundary_arn))
    error_message = "Set permissions_boundary_arn to the ARN of an IAM policy, or leave it null."
  }
}

variable "replica" {
  description = "Region of the third copy (the region of provider `aws.replica`), or null for none."
  type = object({
    region                   = string
    kms_deletion_window_days = optional(number, 30)
  })
  default = null

  validation {
    condition     = var.replica == null || can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.replica.region))
    error_message = "Set replica.region to an AWS region other than the home region, for example eu-west-1, or replica to null."
  }

  validation {
    condition     = var.replica == null || try(var.replica.kms_deletion_window_days >= 7 && var.replica.kms_deletion_window_days <= 30, false)
    error_message = "Set replica.kms_deletion_window_days between 7 and 30 (the limits of KMS)."
  }
}

variable "sessions_retention_days" {
  description = "Days after which a stored conversation is deleted."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.sessions_retention_days >= 1 && var.sessions_retention_days <= 3650
    error_message = "Set sessions_retention_days between 1 and 3650."
  }
}

variable "logs_retention_days" {
  description = "Days that logs are kept; MLPS 2.0 asks for six months."
  type        = number
  default     = 400
  nullable    = false

  validation {
    condition     = var.logs_retention_days >= 180
    error_message = "Set logs_retention_days to 180 or more: MLPS 2.0 asks for six months of audit logs."
  }
}

variable "noncurrent_days" {
  description = "Days that overwritten versions of models and logs can be brought back."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "Set noncurrent_days to 1 or more."
  }
}

variable "force_destroy" {
  description = "Whether `terraform destroy` may delete buckets that still hold objects."
  type        = bool
  default     = false
  nullable    = false
}
