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

variable "log_kms_key_arn" {
  description = "KMS key of the log groups; its policy must allow CloudWatch Logs."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.log_kms_key_arn))
    error_message = "Set log_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "topic_kms_key_arn" {
  description = "KMS key of the alarm topic; its policy must allow CloudWatch."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.topic_kms_key_arn))
    error_message = "Set topic_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "workspace_kms_key_arn" {
  description = "KMS key of the Prometheus workspace, or null for AWS's own."
  type        = string
  default     = null

  validation {
    condition     = var.workspace_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:", var.workspace_kms_key_arn))
    error_message = "Set workspace_kms_key_arn to the ARN of a KMS key (arn:aws:kms:...), or leave it null."
  }
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([180, 365, 400, 545, 731, 1096, 1827], var.log_retention_days)
    error_message = "Set log_retention_days to 180, 365, 400, 545, 731, 1096 or 1827 (CloudWatch's steps; MLPS asks for six months)."
  }
}

variable "alarm_emails" {
  description = "Addresses that alarms go to; each must confirm once."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for a in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", a))])
    error_message = "Write each of alarm_emails as name@example.org."
  }
}

variable "load_balancer_dimension" {
  description = "The load balancer's name in CloudWatch (app/name/id)."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.load_balancer_dimension) > 0
    error_message = "Set load_balancer_dimension to the edge module's output of that name."
  }
}

variable "target_group_dimensions" {
  description = "The target groups' names in CloudWatch."
  type        = object({ http = string, grpc = string })
  nullable    = false

  validation {
    condition     = alltrue([for d in values(var.target_group_dimensions) : length(d) > 0])
    error_message = "Set target_group_dimensions to the edge module's output of that name."
  }
}

variable "node_events_queue_name" {
  description = "Name of the queue of spot and lifecycle events."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.node_events_queue_name) > 0
    error_message = "Set node_events_queue_name to the spot_events module's queue_name."
  }
}

variable "dead_letter_queue_name" {
  description = "Name of the dead-letter queue."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.dead_letter_queue_name) > 0
    error_message = "Set dead_letter_queue_name to the spot_events module's output of that name."
  }
}

variable "redis_replication_group_id" {
  description = "Replication group to watch."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.redis_replication_group_id) > 0
    error_message = "Set redis_replication_group_id to the redis module's output of that name."
  }
}

variable "asg_floors" {
  description = "Auto Scaling groups and their floors by pool; a pool with a floor raises an alarm below it."
  type        = map(object({ name = string, min_size = number }))
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for a in var.asg_floors : a.min_size >= 0 && length(a.name) > 0])
    error_message = "Give each of asg_floors a name and a min_size of 0 or more."
  }
}

variable "p99_response_s" {
  description = "Seconds to the first byte that 99 of 100 responses must stay under."
  type        = number
  default     = 5
  nullable    = false

  validation {
    condition     = var.p99_response_s > 0 && var.p99_response_s <= 300
    error_message = "Set p99_response_s between 0 and 300 seconds."
  }
}

variable "prometheus_rules" {
  description = "Rule files by name, as YAML text (groups of recording and alert rules)."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for r in values(var.prometheus_rules) : can(yamldecode(r).groups)])
    error_message = "Give each of prometheus_rules the text of a Prometheus rule file: YAML with a list `groups`."
  }
}
