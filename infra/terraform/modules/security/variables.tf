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
  description = "VPC that the groups belong to."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^vpc-", var.vpc_id))
    error_message = "Set vpc_id to the id of a VPC (vpc-...)."
  }
}

variable "allowed_cidrs" {
  description = "IPv4 ranges of clients that may reach the load balancer on 443."
  type        = list(string)
  default     = ["0.0.0.0/0"]
  nullable    = false

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for c in var.allowed_cidrs : can(cidrhost(c, 0))])
    error_message = "Give at least one valid IPv4 range in allowed_cidrs, for example 203.0.113.0/24."
  }
}

variable "ports" {
  description = "Ports of the gateway (http, grpc) on its node, and of Redis."
  type = object({
    http  = optional(number, 8000)
    grpc  = optional(number, 9000)
    redis = optional(number, 6379)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for p in values(var.ports) : p >= 1024 && p <= 65535])
    error_message = "Set each of ports between 1024 and 65535: services do not run as root."
  }

  validation {
    condition     = var.ports.http != var.ports.grpc
    error_message = "Give ports.http and ports.grpc different numbers: the gateway listens on both."
  }
}
