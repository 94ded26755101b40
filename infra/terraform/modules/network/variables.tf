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

variable "cidr" {
  description = "IPv4 block of the VPC, /16 to /20; the lower half goes to the nodes."
  type        = string
  nullable    = false

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(cidrhost(var.cidr, 0) == split("/", var.cidr)[0], false)
    error_message = "Set cidr to a valid IPv4 network address with its prefix length, for example 10.40.0.0/16."
  }

  validation {
    condition     = try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "Set the prefix length of cidr between /16 and /20: smaller blocks leave no room for the expert groups' interfaces."
  }
}

variable "availability_zones" {
  description = "Names of 2 to 4 availability zones; production uses 3."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.availability_zones) >= 2 && length(var.availability_zones) <= 4
    error_message = "Give 2 to 4 availability_zones: one zone alone takes the whole service down with it, and spot capacity in it dries up at once."
  }

  validation {
    condition     = length(distinct(var.availability_zones)) == length(var.availability_zones)
    error_message = "List each of the availability_zones once."
  }
}

variable "nat_gateways" {
  description = "`per_az` (one gateway in each zone), `single` (one for all) or `none` (AWS endpoints only, no Internet)."
  type        = string
  default     = "per_az"
  nullable    = false

  validation {
    condition     = contains(["per_az", "single", "none"], var.nat_gateways)
    error_message = "Set nat_gateways to per_az, single or none."
  }
}

variable "interface_endpoints" {
  description = "AWS services reached over interface endpoints, by the last part of their name."
  type        = set(string)
  default     = ["autoscaling", "ec2", "kms", "logs", "monitoring", "secretsmanager", "sqs", "ssm", "ssmmessages", "sts"]
  nullable    = false

  validation {
    condition     = alltrue([for s in var.interface_endpoints : can(regex("^[a-z][a-z0-9.-]*$", s)) && s != "s3"])
    error_message = "Name interface_endpoints by the service's short name (for example sqs, ecr.api); leave out s3, which has a gateway endpoint that costs nothing."
  }
}

variable "flow_log_retention_days" {
  description = "Days that VPC flow logs are kept."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([180, 365, 400, 545, 731, 1096, 1827], var.flow_log_retention_days)
    error_message = "Set flow_log_retention_days to 180, 365, 400, 545, 731, 1096 or 1827: CloudWatch accepts no other values, and MLPS asks for six months."
  }
}

variable "kms_key_arn" {
  description = "KMS key that encrypts the flow logs; its policy must allow CloudWatch Logs."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:", var.kms_key_arn))
    error_message = "Set kms_key_arn to the ARN of a KMS key (arn:aws:kms:...)."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary put on the flow log role, or null."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::.*:policy/", var.permissions_boundary_arn))
    error_message = "Set permissions_boundary_arn to the ARN of an IAM policy, or leave it null."
  }
}
