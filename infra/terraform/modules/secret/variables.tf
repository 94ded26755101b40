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
  description = "KMS key that seals the secret."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Set kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "purpose" {
  description = "What the secret is for; the second part of its name (`<name>/<purpose>`)."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,40}$", var.purpose))
    error_message = "Set purpose to 2-41 characters of a-z, 0-9 and '-', starting with a letter."
  }
}

variable "description" {
  description = "One sentence that tells an operator who reads the secret."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.description) >= 10
    error_message = "Write a description of at least 10 characters: who reads this secret, and for what?"
  }
}

variable "length" {
  description = "Characters of the secret; 43 of a-z, A-Z, 0-9 hold 256 bits."
  type        = number
  default     = 48
  nullable    = false

  validation {
    condition     = var.length >= 43 && var.length <= 128
    error_message = "Set length between 43 (256 bits) and 128 (the limit of ElastiCache)."
  }
}

variable "generation" {
  description = "Raise by one to replace the value; readers pick it up at their next start."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.generation >= 1 && floor(var.generation) == var.generation
    error_message = "Set generation to a whole number from 1 up."
  }
}

variable "recovery_window_days" {
  description = "Days a deleted secret can be brought back; 0 deletes at once."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.recovery_window_days == 0 || (var.recovery_window_days >= 7 && var.recovery_window_days <= 30)
    error_message = "Set recovery_window_days to 0 or between 7 and 30 (the limits of Secrets Manager)."
  }
}
