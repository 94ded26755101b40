mock_provider "aws" {
  mock_resource "aws_placement_group" {
    defaults = { arn = "arn:aws:ec2:eu-central-1:123456789012:placement-group/mock" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_resourcegroups_group" {
    defaults = { arn = "arn:aws:resource-groups:eu-central-1:123456789012:group/mock" }
  }
  mock_resource "aws_ec2_capacity_reservation" {
    defaults = { arn = "arn:aws:ec2:eu-central-1:123456789012:capacity-reservation/cr-1" }
  }
}

variables {
  name                    = "mesh-test"
  pool                    = "gpu-spot"
  tier                    = "spot"
  capacity                = { min_size = 1, max_size = 8, on_demand_base = 1, on_demand_percentage = 0 }
  instance_types          = ["g6.12xlarge", "g5.12xlarge", "g6e.12xlarge", "g6.24xlarge", "g5.24xlarge", "g6e.24xlarge", "g6.48xlarge", "g5.48xlarge", "g6e.48xlarge", "p4d.24xlarge"]
  subnet_ids              = { "eu-central-1a" = "subnet-a", "eu-central-1b" = "subnet-b" }
  ami_id                  = "ami-0123456789abcdef0"
  security_group_ids      = ["sg-node"]
  instance_profile_name   = "mesh-test-worker"
  kms_key_arn             = "arn:aws:kms:eu-central-1:123456789012:key/ebs"
  service_linked_role_arn = "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling_mesh-test"
  node_facts = {
    region               = "eu-central-1"
    head_host            = "head.mesh.internal"
    gcs_port             = 6380
    ray_token_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mesh/ray-token-abc"
    models               = [{ name = "tiny", s3_uri = "s3://mesh-models/tiny" }]
  }
}

run "spot_spread_wide" {
  assert {
    condition     = aws_autoscaling_group.this.capacity_rebalance && aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution[0].spot_allocation_strategy == "price-capacity-optimized"
    error_message = "Spot rebalances and takes the deepest cheap capacity."
  }
  assert {
    condition     = length(aws_autoscaling_group.this.mixed_instances_policy[0].launch_template[0].override) == 10
    error_message = "Ten types stand in for each other."
  }
  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required" && aws_launch_template.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Metadata takes tokens only, over one hop."
  }
  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted == "true" && aws_launch_template.this.block_device_mappings[0].ebs[0].volume_type == "gp3"
    error_message = "Volumes are gp3 and sealed."
  }
  assert {
    condition     = aws_launch_template.this.network_interfaces[0].associate_public_ip_address == "false"
    error_message = "No node has a public address."
  }
  assert {
    condition     = { for h in aws_autoscaling_group.this.initial_lifecycle_hook : h.name => h.default_result } == { join = "ABANDON", drain = "CONTINUE" }
    error_message = "Auto Scaling waits at both ends of a node's life."
  }
  assert {
    condition     = aws_autoscaling_group.this.protect_from_scale_in && contains(aws_autoscaling_group.this.suspended_processes, "AZRebalance")
    error_message = "Only the controller chooses which node goes."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "\"pool\":\"gpu-spot\"") && strcontains(base64decode(aws_launch_template.this.user_data), "services.capacity.bootstrap ray")
    error_message = "User data holds the node's facts and starts Ray."
  }
  assert {
    condition     = length(aws_placement_group.this) == 0 && length(aws_ec2_capacity_reservation.vip) == 0
    error_message = "A single-node pool needs neither placement group nor reservation."
  }
}

run "vip_over_two_nodes_with_efa_and_a_reservation" {
  variables {
    pool                        = "gpu-vip"
    tier                        = "vip"
    capacity                    = { min_size = 2, max_size = 4, on_demand_base = 2, on_demand_percentage = 100 }
    instance_types              = ["p5.48xlarge"]
    subnet_ids                  = { "eu-central-1a" = "subnet-a" }
    expert_group                = { nodes = 2 }
    efa_interfaces              = 32
    reserved_instances_per_zone = 2
    release                     = { s3_uri = "s3://mesh-models/releases/1.tar.gz", sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }
  }
  assert {
    condition     = aws_placement_group.this["this"].strategy == "cluster" && length(aws_launch_template.this.placement) == 1
    error_message = "The group's nodes sit close together."
  }
  assert {
    condition     = length(aws_launch_template.this.network_interfaces) == 32 && alltrue([for n in aws_launch_template.this.network_interfaces : n.interface_type == "efa" && n.associate_public_ip_address == null])
    error_message = "One EFA interface per network card."
  }
  assert {
    condition     = aws_ec2_capacity_reservation.vip["eu-central-1a"].instance_match_criteria == "targeted" && aws_ec2_capacity_reservation.vip["eu-central-1a"].instance_count == 2
    error_message = "The reservation is this pool's alone."
  }
  assert {
    condition     = !aws_autoscaling_group.this.capacity_rebalance && aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution[0].on_demand_percentage_above_base_capacity == 100
    error_message = "A VIP pool is on-demand to the last node."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "sha256sum --check")
    error_message = "A release is checked before it is installed."
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

run "pool_in_capitals" {
  command = plan

  variables {
    pool = "GPU"
  }
  expect_failures = [var.pool]
}

run "tier_unknown" {
  command = plan

  variables {
    tier = "gold"
  }
  expect_failures = [var.tier]
}

run "min_over_max" {
  command = plan

  variables {
    capacity = { min_size = 9, max_size = 8, on_demand_percentage = 0 }
  }
  expect_failures = [var.capacity]
}

run "initial_over_max" {
  command = plan

  variables {
    capacity = { min_size = 1, max_size = 8, initial_size = 9, on_demand_percentage = 0 }
  }
  expect_failures = [var.capacity]
}

run "percentage_over_100" {
  command = plan

  variables {
    capacity = { min_size = 1, max_size = 8, on_demand_percentage = 101 }
  }
  expect_failures = [var.capacity]
}

run "base_over_max" {
  command = plan

  variables {
    capacity = { min_size = 1, max_size = 8, on_demand_base = 9, on_demand_percentage = 0 }
  }
  expect_failures = [var.capacity]
}

run "vip_with_spot" {
  command = plan

  variables {
    tier     = "vip"
    capacity = { min_size = 1, max_size = 8, on_demand_percentage = 50 }
  }
  expect_failures = [var.capacity]
}

run "two_heads" {
  command = plan

  variables {
    tier       = "head"
    capacity   = { min_size = 1, max_size = 2, on_demand_percentage = 100 }
    node_facts = { region = "eu-central-1", head_host = "h", gcs_port = 6380, ray_token_secret_arn = "arn", head_zone_id = "Z1", node_events_queue_url = "https://q", redis = { host = "r", port = 6379, username = "mesh", secret_arn = "arn" } }
  }
  expect_failures = [var.capacity]
}

run "types_malformed" {
  command = plan

  variables {
    instance_types         = ["big"]
    diversification_waiver = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
  }
  expect_failures = [var.instance_types]
}

run "types_twice" {
  command = plan

  variables {
    instance_types         = ["g6.xlarge", "g6.xlarge"]
    diversification_waiver = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
  }
  expect_failures = [var.instance_types]
}

run "spot_of_one_type" {
  command = plan

  variables {
    instance_types = ["g6.xlarge"]
  }
  expect_failures = [var.instance_types]
}

run "waiver_without_a_reason" {
  command = plan

  variables {
    diversification_waiver = "because"
  }
  expect_failures = [var.diversification_waiver]
}

run "no_subnet" {
  command = plan

  variables {
    subnet_ids = {}
  }
  expect_failures = [var.subnet_ids]
}

run "spot_in_one_zone" {
  command = plan

  variables {
    subnet_ids = { "eu-central-1a" = "subnet-a" }
  }
  expect_failures = [var.subnet_ids]
}

run "group_over_two_zones" {
  command = plan

  variables {
    tier         = "fallback"
    capacity     = { min_size = 2, max_size = 8, on_demand_percentage = 100 }
    expert_group = { nodes = 2 }
  }
  expect_failures = [var.subnet_ids]
}

run "efa_over_two_subnets" {
  command = plan

  variables {
    tier           = "vip"
    capacity       = { min_size = 2, max_size = 8, on_demand_percentage = 100 }
    instance_types = ["p5.48xlarge"]
    efa_interfaces = 32
  }
  expect_failures = [var.subnet_ids]
}

run "half_a_node" {
  command = plan

  variables {
    expert_group = { nodes = 1.5 }
  }
  expect_failures = [var.expert_group]
}

run "group_on_spot_without_a_reason" {
  command = plan

  variables {
    capacity     = { min_size = 2, max_size = 8, on_demand_percentage = 0 }
    subnet_ids   = { "eu-central-1a" = "subnet-a" }
    expert_group = { nodes = 2 }
  }
  expect_failures = [var.expert_group]
}

run "half_a_group" {
  command = plan

  variables {
    tier         = "fallback"
    capacity     = { min_size = 3, max_size = 8, on_demand_percentage = 100 }
    subnet_ids   = { "eu-central-1a" = "subnet-a" }
    expert_group = { nodes = 2 }
  }
  expect_failures = [var.expert_group]
}

run "forty_interfaces" {
  command = plan

  variables {
    tier           = "vip"
    capacity       = { min_size = 2, max_size = 8, on_demand_percentage = 100 }
    subnet_ids     = { "eu-central-1a" = "subnet-a" }
    instance_types = ["p5.48xlarge"]
    efa_interfaces = 40
  }
  expect_failures = [var.efa_interfaces]
}

run "efa_over_many_types" {
  command = plan

  variables {
    tier           = "vip"
    capacity       = { min_size = 2, max_size = 8, on_demand_percentage = 100 }
    subnet_ids     = { "eu-central-1a" = "subnet-a" }
    efa_interfaces = 4
  }
  expect_failures = [var.efa_interfaces]
}

run "reservation_of_half_a_node" {
  command = plan

  variables {
    tier                        = "vip"
    capacity                    = { min_size = 2, max_size = 8, on_demand_percentage = 100 }
    instance_types              = ["p5.48xlarge"]
    reserved_instances_per_zone = 0.5
  }
  expect_failures = [var.reserved_instances_per_zone]
}

run "reservation_for_spot" {
  command = plan

  variables {
    instance_types              = ["p5.48xlarge"]
    diversification_waiver      = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    reserved_instances_per_zone = 1
  }
  expect_failures = [var.reserved_instances_per_zone]
}

run "reservation_over_many_types" {
  command = plan

  variables {
    tier                        = "vip"
    capacity                    = { min_size = 2, max_size = 8, on_demand_percentage = 100 }
    reserved_instances_per_zone = 1
  }
  expect_failures = [var.reserved_instances_per_zone]
}

run "drain_over_110" {
  command = plan

  variables {
    drain = { drain_seconds = 111 }
  }
  expect_failures = [var.drain]
}

run "graceful_over_drain" {
  command = plan

  variables {
    drain = { drain_seconds = 60, graceful_shutdown_timeout_s = 60, replica_start_s = 1 }
  }
  expect_failures = [var.drain]
}

run "graceful_and_start_over_drain" {
  command = plan

  variables {
    drain = { drain_seconds = 100, graceful_shutdown_timeout_s = 50, replica_start_s = 50 }
  }
  expect_failures = [var.drain]
}

run "join_too_short" {
  command = plan

  variables {
    join_timeout_s = 5
  }
  expect_failures = [var.join_timeout_s]
}

run "lifetime_of_two_years" {
  command = plan

  variables {
    max_instance_lifetime_days = 730
  }
  expect_failures = [var.max_instance_lifetime_days]
}

run "ami_by_name" {
  command = plan

  variables {
    ami_id = "ubuntu"
  }
  expect_failures = [var.ami_id]
}

run "volume_too_small" {
  command = plan

  variables {
    root_volume = { size_gib = 8 }
  }
  expect_failures = [var.root_volume]
}

run "volume_too_fast" {
  command = plan

  variables {
    root_volume = { iops = 99999 }
  }
  expect_failures = [var.root_volume]
}

run "no_group" {
  command = plan

  variables {
    security_group_ids = []
  }
  expect_failures = [var.security_group_ids]
}

run "no_profile" {
  command = plan

  variables {
    instance_profile_name = ""
  }
  expect_failures = [var.instance_profile_name]
}

run "kms_key_arn_not_a_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:s3:::bucket"
  }
  expect_failures = [var.kms_key_arn]
}

run "role_not_a_role" {
  command = plan

  variables {
    service_linked_role_arn = "AWSServiceRoleForAutoScaling"
  }
  expect_failures = [var.service_linked_role_arn]
}

run "engines_behind_the_door" {
  command = plan

  variables {
    target_group_arns = ["arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/http/1"]
  }
  expect_failures = [var.target_group_arns]
}

run "model_not_in_s3" {
  command = plan

  variables {
    node_facts = { region = "eu-central-1", head_host = "h", gcs_port = 6380, ray_token_secret_arn = "arn", models = [{ name = "m", s3_uri = "https://x" }] }
  }
  expect_failures = [var.node_facts]
}

run "gcs_port_of_root" {
  command = plan

  variables {
    node_facts = { region = "eu-central-1", head_host = "h", gcs_port = 80, ray_token_secret_arn = "arn" }
  }
  expect_failures = [var.node_facts]
}

run "head_without_redis" {
  command = plan

  variables {
    tier     = "head"
    capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 }
  }
  expect_failures = [var.node_facts]
}

run "label_of_ray" {
  command = plan

  variables {
    labels = { "ray.io/x" = "y" }
  }
  expect_failures = [var.labels]
}

run "release_without_hash" {
  command = plan

  variables {
    release = { s3_uri = "s3://b/r.tar.gz", sha256 = "x" }
  }
  expect_failures = [var.release]
}

run "install_dir_relative" {
  command = plan

  variables {
    install_dir = "expertmesh"
  }
  expect_failures = [var.install_dir]
}
