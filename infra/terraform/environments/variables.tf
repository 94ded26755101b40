variable "region" {
  description = "Home region."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Set region to an AWS region, for example eu-central-1."
  }
}

variable "replica_region" {
  description = "Region that may keep the copy of the buckets."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.replica_region)) && var.replica_region != var.region
    error_message = "Set replica_region to an AWS region other than region, for example eu-west-1."
  }
}

variable "zones" {
  description = "Letters of the availability zones in region."
  type        = list(string)
  default     = ["a", "b", "c"]
  nullable    = false

  validation {
    condition     = length(var.zones) >= 2 && alltrue([for z in var.zones : can(regex("^[a-f]$", z))])
    error_message = "Give 2 or more zones by their letters, for example [\"a\", \"b\", \"c\"]."
  }
}

variable "certificate_arn" {
  description = "ACM certificate of the public name, in region."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "Set certificate_arn to an ACM certificate (arn:aws:acm:...); docs/runbooks/deploy-aws.md shows how to request one."
  }
}

variable "public_dns" {
  description = "Route 53 zone and name of the service, or null for the load balancer's own name."
  type        = object({ zone_id = string, name = string })
  default     = null

  validation {
    condition     = var.public_dns == null || try(length(var.public_dns.zone_id) > 0, false)
    error_message = "Set public_dns.zone_id and public_dns.name, or public_dns to null."
  }
}

variable "ami_ids" {
  description = "Images: cpu for head and gateways, gpu (with drivers) for engines."
  type        = object({ cpu = string, gpu = string })
  nullable    = false

  validation {
    condition     = alltrue([for a in values(var.ami_ids) : can(regex("^ami-[0-9a-f]{8,17}$", a))])
    error_message = "Set ami_ids.cpu and ami_ids.gpu to image ids (ami-...); docs/runbooks/deploy-aws.md shows how to look them up."
  }
}

variable "alarm_emails" {
  description = "Addresses that alarms go to."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for a in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", a))])
    error_message = "Write each of alarm_emails as name@example.org."
  }
}

variable "models" {
  description = "Weights that GPU nodes fetch before they serve."
  type        = list(object({ name = string, s3_uri = string }))
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for m in var.models : startswith(m.s3_uri, "s3://")])
    error_message = "Begin the s3_uri of each of models with s3://."
  }
}

variable "release" {
  description = "Wheel bundle that nodes install at boot, or null where the images have it."
  type        = object({ s3_uri = string, sha256 = string })
  default     = null

  validation {
    condition     = var.release == null || try(length(var.release.sha256) == 64, false)
    error_message = "Give release.sha256 the 64 hex digits that `sha256sum` prints."
  }
}
