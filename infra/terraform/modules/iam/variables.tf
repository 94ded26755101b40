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

variable "bucket_arns" {
  description = "ARNs of the buckets of the storage module."
  type = object({
    models   = string
    sessions = string
    logs     = string
  })
  nullable = false

  validation {
    condition     = alltrue([for a in values(var.bucket_arns) : can(regex("^arn:aws[a-z-]*:s3:::[^*/]+$", a))])
    error_message = "Set each of bucket_arns to the ARN of one bucket (arn:aws:s3:::name, no wildcard, no path)."
  }
}

variable "kms_key_arns" {
  description = "KMS keys that the roles may use: storage (objects and secrets) and events (queue)."
  type = object({
    storage = string
    events  = string
  })
  nullable = false

  validation {
    condition     = alltrue([for a in values(var.kms_key_arns) : can(regex("^arn:aws[a-z-]*:kms:[^*]*$", a))])
    error_message = "Set each of kms_key_arns to the ARN of one KMS key, without a wildcard."
  }
}

variable "secret_arns" {
  description = "Secrets that the roles may read."
  type = object({
    ray_token = string
    redis     = string
  })
  nullable = false

  validation {
    condition     = alltrue([for a in values(var.secret_arns) : can(regex("^arn:aws[a-z-]*:secretsmanager:[^*]*$", a))])
    error_message = "Set each of secret_arns to the ARN of one secret, without a wildcard."
  }
}

variable "node_events_queue_arn" {
  description = "Queue of spot and lifecycle events that the head reads."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:sqs:[^*]*$", var.node_events_queue_arn))
    error_message = "Set node_events_queue_arn to the ARN of one SQS queue, without a wildcard."
  }
}

variable "head_dns" {
  description = "Private zone and record name that a new head points at itself."
  type = object({
    zone_arn = string
    record   = string
  })
  nullable = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:route53:::hostedzone/[^*]+$", var.head_dns.zone_arn))
    error_message = "Set head_dns.zone_arn to the ARN of one hosted zone (arn:aws:route53:::hostedzone/...)."
  }

  validation {
    condition     = can(regex("^[a-z0-9.-]+[a-z0-9]$", var.head_dns.record))
    error_message = "Set head_dns.record to the full lower-case name of the head, without a trailing dot."
  }
}

variable "prometheus_workspace_arn" {
  description = "Prometheus workspace that nodes write to, or null."
  type        = string
  default     = null

  validation {
    condition     = var.prometheus_workspace_arn == null || can(regex("^arn:aws[a-z-]*:aps:[^*]*$", var.prometheus_workspace_arn))
    error_message = "Set prometheus_workspace_arn to the ARN of one workspace (arn:aws:aps:...), or leave it null."
  }
}

variable "session_manager" {
  description = "Whether operators may open recorded shells on nodes through Session Manager."
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
