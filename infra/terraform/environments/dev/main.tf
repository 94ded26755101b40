# Development: the same shape, two zones, one NAT gateway, small machines, nothing that refuses to go away.

locals {
  name = "expertmesh-dev"
  tags = { Project = "expertmesh", Environment = "dev", ManagedBy = "terraform" }

  one_gpu_types = [
    "g6.xlarge", "g5.xlarge", "g4dn.xlarge", "g6e.xlarge", "g6.2xlarge", "g5.2xlarge", "g4dn.2xlarge", "g6e.2xlarge",
    "g6.4xlarge", "g5.4xlarge",
  ]
}

module "platform" {
  source = "../../modules/platform"

  providers = {
    aws         = aws
    aws.replica = aws.replica
  }

  name            = local.name
  tags            = local.tags
  protect         = false
  internal_domain = "dev.expertmesh.internal"
  replica_region  = null
  alarm_emails    = var.alarm_emails
  models          = var.models
  release         = var.release

  network = {
    cidr                = "10.41.0.0/18"
    availability_zones  = [for z in slice(var.zones, 0, 2) : "${var.region}${z}"]
    nat_gateways        = "single"
    interface_endpoints = []
  }

  edge = {
    certificate_arn = var.certificate_arn
    public_dns      = var.public_dns
    rate_limits     = { per_address = 300, per_key = 600 }
  }

  redis     = { node_type = "cache.t4g.small", replicas = 0, snapshot_retention_days = 1 }
  retention = { log_days = 365, session_days = 7, kms_deletion_window_days = 7 }

  pools = {
    head = {
      tier           = "head"
      ingress        = true
      ami_id         = var.ami_ids.cpu
      instance_types = ["m7i.xlarge"]
      capacity       = { min_size = 1, max_size = 1, on_demand_percentage = 100 }
    }
    gpu-spot = {
      tier           = "spot"
      fallback_pool  = "gpu-fallback"
      ami_id         = var.ami_ids.gpu
      instance_types = local.one_gpu_types
      capacity       = { min_size = 0, max_size = 2, initial_size = 1, on_demand_percentage = 0 }
    }
    gpu-fallback = {
      tier           = "fallback"
      ami_id         = var.ami_ids.gpu
      instance_types = ["g6.xlarge", "g5.xlarge"]
      capacity       = { min_size = 0, max_size = 1, on_demand_percentage = 100 }
    }
    gpu-vip = {
      tier           = "vip"
      ami_id         = var.ami_ids.gpu
      instance_types = ["g6.xlarge"]
      capacity       = { min_size = 0, max_size = 1, on_demand_percentage = 100 }
    }
  }

  prometheus_rules = {
    for name in fileset("${path.module}/../../../prometheus", "*.rules.yml") :
    trimsuffix(name, ".rules.yml") => file("${path.module}/../../../prometheus/${name}")
  }
}
