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
  description = "KMS key of the queues; its policy must allow EventBridge."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Set kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "message_retention_s" {
  description = "Seconds that an unread event stays; old notices are worthless."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.message_retention_s >= 120 && var.message_retention_s <= 3600
    error_message = "Set message_retention_s between 120 (a notice's life) and 3600."
  }
}

variable "visibility_timeout_s" {
  description = "Seconds until an event that was read and not deleted is offered again."
  type        = number
  default     = 15
  nullable    = false

  validation {
    condition     = var.visibility_timeout_s >= 5 && var.visibility_timeout_s <= 60
    error_message = "Set visibility_timeout_s between 5 and 60: a notice lives 120 s, and a second reader must still have time for it."
  }
}

variable "max_receive_count" {
  description = "Reads after which an event moves to the dead-letter queue."
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = var.max_receive_count >= 2 && var.max_receive_count <= 10
    error_message = "Set max_receive_count between 2 and 10."
  }
}
