# One pool: machines of one purpose that may stand in for each other. The pool controller owns the desired
# size; Auto Scaling owns launching, and waits for us at both ends of a node's life (join and drain hooks).

locals {
  full_name   = "${var.name}-${var.pool}"
  subnet_ids  = values(var.subnet_ids)
  has_spot    = var.capacity.on_demand_percentage < 100
  multi_node  = var.expert_group.nodes > 1
  clustered   = local.multi_node || var.efa_interfaces > 0
  reserved    = var.reserved_instances_per_zone > 0
  reservation = local.reserved ? var.subnet_ids : {}

  # Network card 0 carries the node's address; further EFA cards have none.
  cards = range(max(1, var.efa_interfaces))

  facts = merge(var.node_facts, {
    cluster                     = var.name
    pool                        = var.pool
    tier                        = var.tier
    asg                         = local.full_name
    hooks                       = { join = "join", drain = "drain" }
    drain_seconds               = var.drain.drain_seconds
    graceful_shutdown_timeout_s = var.drain.graceful_shutdown_timeout_s
    labels                      = merge({ "expertmesh.io/pool" = var.pool, "expertmesh.io/tier" = var.tier }, var.labels)
  })

  tags = merge(var.tags, { Name = local.full_name, "expertmesh:pool" = var.pool, "expertmesh:tier" = var.tier })
}

# ---------------------------------------------------------------- placement and reserved capacity
resource "aws_placement_group" "this" {
  for_each = local.clustered ? { this = local.full_name } : {}

  name     = each.value
  strategy = "cluster"

  tags = local.tags
}

# "targeted": only this pool's launch template may use the reservation, not any instance of the same type.
resource "aws_ec2_capacity_reservation" "vip" {
  for_each = local.reservation

  instance_type           = var.instance_types[0]
  instance_platform       = "Linux/UNIX"
  availability_zone       = each.key
  instance_count          = var.reserved_instances_per_zone
  instance_match_criteria = "targeted"
  end_date_type           = "unlimited"
  placement_group_arn     = local.clustered ? aws_placement_group.this["this"].arn : null

  tags = local.tags
}

resource "aws_resourcegroups_group" "vip" {
  for_each = local.reserved ? { this = local.full_name } : {}

  name        = "${each.value}-reservations"
  description = "Capacity reservations of pool ${var.pool}"

  configuration {
    type = "AWS::EC2::CapacityReservationPool"
  }
  configuration {
    type = "AWS::ResourceGroups::Generic"
    parameters {
      name   = "allowed-resource-types"
      values = ["AWS::EC2::CapacityReservation"]
    }
  }

  tags = local.tags
}

resource "aws_resourcegroups_resource" "vip" {
  for_each = aws_ec2_capacity_reservation.vip

  group_arn    = aws_resourcegroups_group.vip["this"].arn
  resource_arn = each.value.arn
}

# ---------------------------------------------------------------- launch template
resource "aws_launch_template" "this" {
  name                                 = local.full_name
  description                          = "Ray node of pool ${var.pool}"
  image_id                             = var.ami_id
  instance_type                        = var.instance_types[0]
  ebs_optimized                        = true
  update_default_version               = true
  instance_initiated_shutdown_behavior = "terminate"

  user_data = base64encode(templatefile("${path.module}/templates/user_data.sh.tftpl", {
    facts       = jsonencode(local.facts)
    release     = var.release
    install_dir = var.install_dir
  }))

  iam_instance_profile {
    name = var.instance_profile_name
  }

  # Tokens only, and one hop: a container or a forwarded request on the node never reaches the metadata.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled"
  }

  monitoring {
    enabled = true
  }

  block_device_mappings {
    device_name = var.root_volume.device_name
    ebs {
      volume_type           = "gp3"
      volume_size           = var.root_volume.size_gib
      iops                  = var.root_volume.iops
      throughput            = var.root_volume.throughput_mib_s
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  dynamic "network_interfaces" {
    for_each = local.cards
    content {
      device_index       = network_interfaces.value == 0 ? 0 : 1
      network_card_index = network_interfaces.value
      interface_type     = var.efa_interfaces > 0 ? "efa" : null
      # EC2 refuses the flag beside several interfaces, and gives them no public address then anyway.
      associate_public_ip_address = length(local.cards) == 1 ? "false" : null
      security_groups             = var.security_group_ids
      delete_on_termination       = true
    }
  }

  dynamic "placement" {
    for_each = aws_placement_group.this
    content {
      group_name = placement.value.name
    }
  }

  dynamic "capacity_reservation_specification" {
    for_each = aws_resourcegroups_group.vip
    content {
      capacity_reservation_target {
        capacity_reservation_resource_group_arn = capacity_reservation_specification.value.arn
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])
    content {
      resource_type = tag_specifications.value
      tags          = local.tags
    }
  }

  tags = local.tags

  depends_on = [aws_resourcegroups_resource.vip]
}

# ---------------------------------------------------------------- group
resource "aws_autoscaling_group" "this" {
  # checkov:skip=CKV2_AWS_15:A gateway says 503 while the model loads or the engines are away; a new machine would mend neither
  name                      = local.full_name
  min_size                  = var.capacity.min_size
  max_size                  = var.capacity.max_size
  desired_capacity          = var.capacity.initial_size
  vpc_zone_identifier       = local.subnet_ids
  service_linked_role_arn   = var.service_linked_role_arn
  capacity_rebalance        = local.has_spot
  health_check_type         = "EC2"
  health_check_grace_period = var.join_timeout_s
  default_instance_warmup   = var.drain.replica_start_s
  target_group_arns         = var.target_group_arns
  force_delete              = var.force_delete
  wait_for_capacity_timeout = "0"
  max_instance_lifetime     = var.max_instance_lifetime_days == null ? null : var.max_instance_lifetime_days * 86400

  # The controller alone decides which node goes, after it has drained it.
  protect_from_scale_in = true
  suspended_processes   = ["AZRebalance"]
  termination_policies  = ["OldestLaunchTemplate", "OldestInstance"]

  enabled_metrics = [
    "GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupTerminatingInstances",
    "GroupTotalInstances",
  ]

  # Hooks given here exist before the first instance; as separate resources they would come too late for it.
  initial_lifecycle_hook {
    name                 = "join"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = var.join_timeout_s
    default_result       = "ABANDON"
  }
  initial_lifecycle_hook {
    name                 = "drain"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = max(30, var.drain.drain_seconds + 10)
    default_result       = "CONTINUE"
  }

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = var.capacity.on_demand_base
      on_demand_percentage_above_base_capacity = var.capacity.on_demand_percentage
      on_demand_allocation_strategy            = "prioritized"
      spot_allocation_strategy                 = "price-capacity-optimized"
    }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.this.id
        version            = aws_launch_template.this.latest_version
      }
      dynamic "override" {
        for_each = var.instance_types
        content {
          instance_type = override.value
        }
      }
    }
  }

  dynamic "instance_refresh" {
    for_each = var.refresh_on_change ? [1] : []
    content {
      strategy = "Rolling"
      preferences {
        min_healthy_percentage       = 100
        max_healthy_percentage       = 110
        instance_warmup              = var.drain.replica_start_s
        scale_in_protected_instances = "Refresh"
        skip_matching                = true
      }
    }
  }

  dynamic "tag" {
    for_each = local.tags
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  lifecycle {
    # The pool controller sets it, many times a day.
    ignore_changes = [desired_capacity]

    precondition {
      condition     = length(base64encode(jsonencode(local.facts))) < 12000
      error_message = "Shorten node_facts or labels of pool ${var.pool}: user data holds 16 KiB at most."
    }
  }
}
