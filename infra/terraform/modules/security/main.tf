# Who may open a connection to whom. Five groups, each with a rule list that reads as a sentence:
#   edge     the Internet (or your ranges) on 443, nothing else
#   ingress  nodes that run gateways: the gateway's two ports, from the edge only
#   node     every Ray node: Ray and the links among themselves; HTTPS out
#   efa      members of expert groups: everything among themselves (EFA bypasses TCP ports)
#   redis    TLS port, from nodes only

locals {
  groups = {
    edge    = "Load balancer: HTTPS from the allowed ranges"
    ingress = "Gateways: HTTP and gRPC from the load balancer"
    node    = "Ray nodes: the mesh among themselves, HTTPS out"
    efa     = "Expert groups: EFA traffic among the members"
    redis   = "Redis: TLS from the nodes"
  }

  # A peer is the name of a group above. Ranges are in the rules below that need them.
  ingress_from_group = {
    ingress_http_from_edge = { group = "ingress", peer = "edge", from = var.ports.http, to = var.ports.http, why = "HTTP and SSE from the load balancer" }
    ingress_grpc_from_edge = { group = "ingress", peer = "edge", from = var.ports.grpc, to = var.ports.grpc, why = "gRPC from the load balancer" }
    # Ray workers, NCCL's bootstrap and the links listen on ports that the kernel picks.
    node_from_node  = { group = "node", peer = "node", from = 1024, to = 65535, why = "Ray, NCCL bootstrap and mesh links between nodes" }
    redis_from_node = { group = "redis", peer = "node", from = var.ports.redis, to = var.ports.redis, why = "Redis over TLS from the nodes" }
  }
  egress_to_group = {
    edge_http_to_ingress = { group = "edge", peer = "ingress", from = var.ports.http, to = var.ports.http, why = "HTTP and health checks to gateways" }
    edge_grpc_to_ingress = { group = "edge", peer = "ingress", from = var.ports.grpc, to = var.ports.grpc, why = "gRPC to gateways" }
    node_to_node         = { group = "node", peer = "node", from = 1024, to = 65535, why = "Ray, NCCL bootstrap and mesh links between nodes" }
    node_to_redis        = { group = "node", peer = "redis", from = var.ports.redis, to = var.ports.redis, why = "Redis over TLS" }
  }
}

resource "aws_security_group" "this" {
  # checkov:skip=CKV2_AWS_5:groups are attached in other modules, which checkov does not join
  for_each = local.groups

  name        = "${var.name}-${each.key}"
  description = each.value
  vpc_id      = var.vpc_id

  tags = merge(var.tags, { Name = "${var.name}-${each.key}" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "edge" {
  for_each = toset(var.allowed_cidrs)

  security_group_id = aws_security_group.this["edge"].id
  description       = "HTTPS from clients"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443

  tags = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "group" {
  # checkov:skip=CKV_AWS_25:false alarm: the rule names a group and no range of addresses; RDP does not listen
  for_each = local.ingress_from_group

  security_group_id            = aws_security_group.this[each.value.group].id
  referenced_security_group_id = aws_security_group.this[each.value.peer].id
  description                  = each.value.why
  ip_protocol                  = "tcp"
  from_port                    = each.value.from
  to_port                      = each.value.to

  tags = var.tags
}

resource "aws_vpc_security_group_egress_rule" "group" {
  for_each = local.egress_to_group

  security_group_id            = aws_security_group.this[each.value.group].id
  referenced_security_group_id = aws_security_group.this[each.value.peer].id
  description                  = each.value.why
  ip_protocol                  = "tcp"
  from_port                    = each.value.from
  to_port                      = each.value.to

  tags = var.tags
}

resource "aws_vpc_security_group_egress_rule" "node_https" {
  security_group_id = aws_security_group.this["node"].id
  description       = "AWS services and package mirrors over HTTPS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443

  tags = var.tags
}

# EFA carries its own protocol, which security groups only admit under "all traffic", both ways.
resource "aws_vpc_security_group_ingress_rule" "efa" {
  security_group_id            = aws_security_group.this["efa"].id
  referenced_security_group_id = aws_security_group.this["efa"].id
  description                  = "EFA from other members of the expert group"
  ip_protocol                  = "-1"

  tags = var.tags
}

resource "aws_vpc_security_group_egress_rule" "efa" {
  security_group_id            = aws_security_group.this["efa"].id
  referenced_security_group_id = aws_security_group.this["efa"].id
  description                  = "EFA to other members of the expert group"
  ip_protocol                  = "-1"

  tags = var.tags
}
