mock_provider "aws" {
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_route53_zone" {
    defaults = { arn = "arn:aws:route53:::hostedzone/Z1", zone_id = "Z1" }
  }
}

# The module that makes the token is set aside here (and tests/infra lays a stand-in over it: mock providers know
# no ephemeral resources).
override_module {
  target  = module.ray_token
  outputs = { arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mesh/ray-token-abc", version_id = "v1" }
}

variables {
  name                    = "mesh-test"
  vpc_id                  = "vpc-0123456789abcdef0"
  subnet_ids              = { "eu-central-1a" = "subnet-a", "eu-central-1b" = "subnet-b" }
  security_group_ids      = { node = "sg-node", ingress = "sg-ingress", efa = "sg-efa" }
  instance_profile_names  = { head = "mesh-test-head", ingress = "mesh-test-ingress", worker = "mesh-test-worker" }
  internal_domain         = "test.mesh.internal"
  redis                   = { host = "redis.example", port = 6379, username = "mesh", secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mesh/redis-abc" }
  node_events_queue_url   = "https://sqs.eu-central-1.amazonaws.com/123456789012/mesh-test-node-events"
  target_group_arns       = ["arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/http/1"]
  volume_kms_key_arn      = "arn:aws:kms:eu-central-1:123456789012:key/ebs"
  secret_kms_key_arn      = "arn:aws:kms:eu-central-1:123456789012:key/storage"
  service_linked_role_arn = "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling_mesh-test"
  pools = {
    head = {
      tier           = "head"
      ingress        = true
      ami_id         = "ami-0123456789abcdef0"
      instance_types = ["m7i.xlarge"]
      capacity       = { min_size = 1, max_size = 1, on_demand_percentage = 100 }
    }
    gpu-spot = {
      tier           = "spot"
      fallback_pool  = "gpu-fallback"
      ami_id         = "ami-0123456789abcdef0"
      instance_types = ["g6.xlarge", "g5.xlarge", "g4dn.xlarge", "g6e.xlarge", "g6.2xlarge", "g5.2xlarge", "g4dn.2xlarge", "g6e.2xlarge", "g6.4xlarge", "g5.4xlarge"]
      capacity       = { min_size = 0, max_size = 4, on_demand_percentage = 0 }
    }
    gpu-fallback = {
      tier           = "fallback"
      ami_id         = "ami-0123456789abcdef0"
      instance_types = ["g6.xlarge"]
      capacity       = { min_size = 0, max_size = 4, on_demand_percentage = 100 }
    }
    gpu-vip = {
      tier           = "vip"
      ami_id         = "ami-0123456789abcdef0"
      instance_types = ["g6.xlarge"]
      zones          = ["eu-central-1a"]
      capacity       = { min_size = 0, max_size = 1, on_demand_percentage = 100 }
    }
  }
}

run "four_pools_and_a_head_that_is_found" {
  assert {
    condition     = toset(keys(module.pool)) == toset(["head", "gpu-spot", "gpu-fallback", "gpu-vip"])
    error_message = "A group for each pool."
  }
  assert {
    condition     = output.head_host == "head.test.mesh.internal" && aws_route53_zone.internal.force_destroy
    error_message = "The head has a name in a private zone."
  }
  assert {
    condition     = output.pool_plans["gpu-spot"].fallback == "gpu-fallback" && output.pool_plans["gpu-spot"].asg == "mesh-test-gpu-spot"
    error_message = "The controller knows who stands in for spot."
  }
  assert {
    condition     = alltrue([for plan in values(output.pool_plans) : toset(keys(plan)) == toset(["asg", "tier", "group_nodes", "fallback"])])
    error_message = "A changed size changes no node."
  }
  assert {
    condition     = local.labels_of["head"]["expertmesh.io/ingress"] == "true" && length(local.labels_of["gpu-spot"]) == 0
    error_message = "Gateways find the nodes behind the load balancer."
  }
  assert {
    condition     = local.facts_of["gpu-spot"].redis == null && local.facts_of["gpu-spot"].node_events_queue_url == null && local.facts_of["head"].redis.host == "redis.example"
    error_message = "Engines are not told of Redis or the queue; the head is."
  }
  assert {
    condition     = one(keys(local.zones_of["gpu-vip"])) == "eu-central-1a" && length(local.zones_of["gpu-spot"]) == 2
    error_message = "Pools sit in the zones they name, or in all."
  }
}

# ---------------------------------------------------------------- refusals: one bad value, one clear error
run "name_in_capitals" {
  command = plan

  variables {
    name = "Mesh"
  }
  expect_failures = [var.name]
}

run "tag_of_aws" {
  command = plan

  variables {
    tags = { "aws:x" = "y" }
  }
  expect_failures = [var.tags]
}

run "vpc_not_an_id" {
  command = plan

  variables {
    vpc_id = "main"
  }
  expect_failures = [var.vpc_id]
}

run "one_zone" {
  command = plan

  variables {
    subnet_ids = { "eu-central-1a" = "subnet-a" }
    pools = {
      head = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
    }
  }
  expect_failures = [var.subnet_ids]
}

run "no_node_group" {
  command = plan

  variables {
    security_group_ids = { node = "", ingress = "i", efa = "e" }
  }
  expect_failures = [var.security_group_ids]
}

run "workers_with_the_heads_rights" {
  command = plan

  variables {
    instance_profile_names = { head = "a", ingress = "b", worker = "a" }
  }
  expect_failures = [var.instance_profile_names]
}

run "no_head" {
  command = plan

  variables {
    pools = {
      fallback = { tier = "fallback", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], capacity = { min_size = 0, max_size = 4, on_demand_percentage = 100 }, ingress = true }
    }
  }
  expect_failures = [var.pools]
}

run "no_ingress" {
  command = plan

  variables {
    pools = {
      head = { tier = "head", ingress = false, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
    }
  }
  expect_failures = [var.pools]
}

run "zone_unknown" {
  command = plan

  variables {
    pools = {
      head = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 }, zones = ["eu-central-1f"] }
    }
  }
  expect_failures = [var.pools]
}

run "fallback_that_is_none" {
  command = plan

  variables {
    pools = {
      head = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
      spot = { tier = "spot", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], diversification_waiver = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", capacity = { min_size = 0, max_size = 4, on_demand_percentage = 0 }, fallback_pool = "head" }
    }
  }
  expect_failures = [var.pools]
}

run "spot_without_fallback" {
  command = plan

  variables {
    pools = {
      head = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
      spot = { tier = "spot", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], diversification_waiver = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", capacity = { min_size = 0, max_size = 4, on_demand_percentage = 0 } }
    }
  }
  expect_failures = [var.pools]
}

run "fallback_of_other_groups" {
  command = plan

  variables {
    pools = {
      head     = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
      spot     = { tier = "spot", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], diversification_waiver = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", capacity = { min_size = 0, max_size = 4, on_demand_percentage = 0 }, fallback_pool = "fallback" }
      fallback = { tier = "fallback", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], capacity = { min_size = 0, max_size = 4, on_demand_percentage = 100 }, zones = ["eu-central-1a"], expert_group = { nodes = 2 } }
    }
  }
  expect_failures = [var.pools]
}

run "gcs_port_of_root" {
  command = plan

  variables {
    gcs_port = 80
  }
  expect_failures = [var.gcs_port]
}

run "domain_of_one_label" {
  command = plan

  variables {
    internal_domain = "internal"
  }
  expect_failures = [var.internal_domain]
}

run "redis_nowhere" {
  command = plan

  variables {
    redis = { host = "", port = 6379, username = "mesh", secret_arn = "" }
  }
  expect_failures = [var.redis]
}

run "queue_not_a_url" {
  command = plan

  variables {
    node_events_queue_url = "queue"
  }
  expect_failures = [var.node_events_queue_url]
}

run "no_target_groups" {
  command = plan

  variables {
    target_group_arns = []
  }
  expect_failures = [var.target_group_arns]
}

run "model_not_in_s3" {
  command = plan

  variables {
    models = [{ name = "m", s3_uri = "https://x" }]
  }
  expect_failures = [var.models]
}

run "telemetry_in_the_clear" {
  command = plan

  variables {
    telemetry = { remote_write_url = "http://x" }
  }
  expect_failures = [var.telemetry]
}

run "release_without_hash" {
  command = plan

  variables {
    release = { s3_uri = "s3://b/r.tar.gz", sha256 = "x" }
  }
  expect_failures = [var.release]
}

run "volume_kms_key_arn_not_a_key" {
  command = plan

  variables {
    volume_kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.volume_kms_key_arn]
}

run "secret_kms_key_arn_not_a_key" {
  command = plan

  variables {
    secret_kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.secret_kms_key_arn]
}

run "role_not_a_role" {
  command = plan

  variables {
    service_linked_role_arn = "AWSServiceRoleForAutoScaling"
  }
  expect_failures = [var.service_linked_role_arn]
}

run "generation_zero" {
  command = plan

  variables {
    ray_token_generation = 0
  }
  expect_failures = [var.ray_token_generation]
}

run "recovery_of_three_days" {
  command = plan

  variables {
    secret_recovery_window_days = 3
  }
  expect_failures = [var.secret_recovery_window_days]
}
