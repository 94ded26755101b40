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
  description = "VPC of the load balancer."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^vpc-", var.vpc_id))
    error_message = "Set vpc_id to the id of a VPC (vpc-...)."
  }
}

variable "subnet_ids" {
  description = "Public subnets (private ones for an internal load balancer), one per zone."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "Give subnet_ids in at least 2 availability zones: a load balancer needs two."
  }
}

variable "security_group_ids" {
  description = "Security groups of the load balancer."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.security_group_ids) > 0
    error_message = "Give at least one of security_group_ids (the security module's edge group)."
  }
}

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
  default     = false
  nullable    = false
}

variable "ports" {
  description = "Ports of the gateway on its node."
  type = object({
    http = number
    grpc = number
  })
  nullable = false

  validation {
    condition     = var.ports.http != var.ports.grpc && alltrue([for p in values(var.ports) : p >= 1024 && p <= 65535])
    error_message = "Set ports.http and ports.grpc to two different ports between 1024 and 65535."
  }
}

variable "certificate_arn" {
  description = "ACM certificate of the public name."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "Set certificate_arn to an ACM certificate of this region (arn:aws:acm:...); docs/runbooks/deploy-aws.md shows how to request one."
  }
}

variable "tls_policy" {
  description = "Security policy of the listener."
  type        = string
  default     = "ELBSecurityPolicy-TLS13-1-3-2021-06"
  nullable    = false

  validation {
    condition     = contains(["ELBSecurityPolicy-TLS13-1-3-2021-06", "ELBSecurityPolicy-TLS13-1-3-FIPS-2023-04"], var.tls_policy)
    error_message = "Set tls_policy to ELBSecurityPolicy-TLS13-1-3-2021-06 or its FIPS form ELBSecurityPolicy-TLS13-1-3-FIPS-2023-04: older versions of TLS are not offered."
  }
}

variable "public_dns" {
  description = "Route 53 zone and name that point at the load balancer, or null."
  type = object({
    zone_id = string
    name    = string
  })
  default = null

  validation {
    condition     = var.public_dns == null || try(length(var.public_dns.zone_id) > 0 && can(regex("^[a-z0-9.-]+$", var.public_dns.name)), false)
    error_message = "Set public_dns.zone_id and a lower-case public_dns.name, or public_dns to null."
  }
}

variable "health_path" {
  description = "Path on which a gateway says whether tokens move."
  type        = string
  default     = "/readyz"
  nullable    = false

  validation {
    condition     = startswith(var.health_path, "/")
    error_message = "Begin health_path with a slash."
  }
}

variable "private_paths" {
  description = "Path patterns that the load balancer answers with 404."
  type        = list(string)
  default     = ["/metrics", "/metrics/*", "/admin/*", "/-/*"]
  nullable    = false

  validation {
    condition     = length(var.private_paths) >= 1 && length(var.private_paths) <= 5 && alltrue([for p in var.private_paths : startswith(p, "/")])
    error_message = "Give 1 to 5 private_paths (the limit of a listener rule), each beginning with a slash."
  }
}

variable "idle_timeout_s" {
  description = "Seconds of silence after which the load balancer cuts a connection."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.idle_timeout_s >= 60 && var.idle_timeout_s <= 4000
    error_message = "Set idle_timeout_s between 60 and 4000 (the limit of the load balancer): queued streams are silent for a while."
  }
}

variable "deregistration_delay_s" {
  description = "Seconds that a leaving target may finish its requests."
  type        = number
  default     = 105
  nullable    = false

  validation {
    condition     = var.deregistration_delay_s >= 10 && var.deregistration_delay_s <= 3600
    error_message = "Set deregistration_delay_s between 10 and 3600."
  }
}

variable "rate_limits" {
  description = "Requests per window from one address, and with one API key."
  type = object({
    per_address = optional(number, 2000)
    per_key     = optional(number, 6000)
    window_s    = optional(number, 60)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.rate_limits.per_address >= 10 && var.rate_limits.per_address <= 2000000000
    error_message = "Set rate_limits.per_address to 10 or more: WAF counts no finer."
  }

  validation {
    condition     = var.rate_limits.per_key >= 10 && var.rate_limits.per_key <= 2000000000
    error_message = "Set rate_limits.per_key to 10 or more: WAF counts no finer."
  }

  validation {
    condition     = contains([60, 120, 300, 600], var.rate_limits.window_s)
    error_message = "Set rate_limits.window_s to 60, 120, 300 or 600 (WAF's windows)."
  }
}

variable "access_log_bucket" {
  description = "Bucket for access logs; its policy must let the load balancer write."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.access_log_bucket) >= 3
    error_message = "Set access_log_bucket to the storage module's access_log_bucket."
  }
}

variable "log_kms_key_arn" {
  description = "KMS key of the firewall's log group."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.log_kms_key_arn))
    error_message = "Set log_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "log_retention_days" {
  description = "Days that the firewall's log is kept."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([180, 365, 400, 545, 731, 1096, 1827], var.log_retention_days)
    error_message = "Set log_retention_days to 180, 365, 400, 545, 731, 1096 or 1827 (CloudWatch's steps, six months or more)."
  }
}

variable "deletion_protection" {
  description = "Whether the load balancer refuses to be destroyed."
  type        = bool
  default     = true
  nullable    = false
}
