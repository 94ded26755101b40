# Production's shape against a fake AWS on this machine: every kind of pool, the copy in a second region, EFA,
# a reservation. AWS_ENDPOINT_URL says where the fake listens (tests/infra starts one).

locals {
  name = "expertmesh-local"
  tags = { Project = "expertmesh", Environment = "local", ManagedBy = "terraform" }

  # Four GPUs or more each, 24 GB or more per GPU: any of them holds a rank group.
  four_gpu_types = [
    "g6e.12xlarge", "g6.12xlarge", "g5.12xlarge", "g6e.24xlarge", "g6.24xlarge", "g5.24xlarge",
    "g6e.48xlarge", "g6.48xlarge", "g5.48xlarge", "p4d.24xlarge",
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
  internal_domain = "local.expertmesh.internal"
  replica_region  = var.replica_region
  alarm_emails    = var.alarm_emails
  models          = var.models
  release         = var.release

  network = {
    cidr               = "10.42.0.0/16"
    availability_zones = [for z in var.zones : "${var.region}${z}"]
    nat_gateways       = "per_az"
  }

  edge = {
    certificate_arn = var.certificate_arn
    public_dns      = var.public_dns
    rate_limits     = { per_address = 2000, per_key = 6000 }
  }

  redis     = { node_type = "cache.r7g.large", replicas = 2, snapshot_retention_days = 14 }
  retention = { log_days = 365, session_days = 30, kms_deletion_window_days = 7 }

  pools = {
    head = {
      tier           = "head"
      ami_id         = var.ami_ids.cpu
      instance_types = ["m7i.2xlarge"]
      capacity       = { min_size = 1, max_size = 1, on_demand_percentage = 100 }
    }
    gateway = {
      tier           = "ingress"
      ingress        = true
      ami_id         = var.ami_ids.cpu
      instance_types = ["c7i.2xlarge", "c6i.2xlarge"]
      capacity       = { min_size = 3, max_size = 12, on_demand_percentage = 100 }
    }
    gpu-spot = {
      tier           = "spot"
      fallback_pool  = "gpu-fallback"
      ami_id         = var.ami_ids.gpu
      instance_types = local.four_gpu_types
      capacity       = { min_size = 2, max_size = var.gpu_spot_max_size, on_demand_base = 2, on_demand_percentage = 0 }
      root_volume    = { size_gib = 300, throughput_mib_s = 500 }
    }
    gpu-fallback = {
      tier           = "fallback"
      ami_id         = var.ami_ids.gpu
      instance_types = ["g6e.12xlarge", "g6.12xlarge", "g5.12xlarge"]
      capacity       = { min_size = 0, max_size = 12, on_demand_percentage = 100 }
      root_volume    = { size_gib = 300, throughput_mib_s = 500 }
    }
    # An expert group over two nodes of eight GPUs: one zone, one placement group, EFA, reserved.
    gpu-vip = {
      tier                        = "vip"
      ami_id                      = var.ami_ids.gpu
      instance_types              = ["p5.48xlarge"]
      zones                       = ["${var.region}${var.zones[0]}"]
      expert_group                = { nodes = 2 }
      efa_interfaces              = 32
      reserved_instances_per_zone = 2
      capacity                    = { min_size = 2, max_size = 4, on_demand_base = 2, on_demand_percentage = 100 }
      root_volume                 = { size_gib = 500, iops = 6000, throughput_mib_s = 1000 }
      join_timeout_s              = 1800
    }
  }

  prometheus_rules = {
    for name in fileset("${path.module}/../../../prometheus", "*.rules.yml") :
    trimsuffix(name, ".rules.yml") => file("${path.module}/../../../prometheus/${name}")
  }
}
