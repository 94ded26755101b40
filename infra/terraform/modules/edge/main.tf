# The only door: an Application Load Balancer on 443, TLS 1.3 alone, with a web application firewall in
# front. HTTP/SSE and gRPC share name and port; the content type tells them apart. Behind it TLS goes on: each node
# makes its own certificate at boot (services/capacity/openssl_certificate.py), which a load balancer does not verify;
# with a TLS 1.3 policy on the listener it offers TLS 1.3 to its targets too, and gateways take nothing less.

locals {
  # A header an ALB rule can see; gRPC requires it (application/grpc, +proto, +json).
  grpc_content_types = ["application/grpc*"]
}

resource "aws_lb" "this" {
  # checkov:skip=CKV_AWS_150:deletion protection follows `protect`: on in prod, off where things must be able to go away
  # checkov:skip=CKV2_AWS_76:the firewall's rule group against Log4j is in a dynamic block, which checkov does not expand
  name               = var.name
  load_balancer_type = "application"
  internal           = var.internal
  subnets            = var.subnet_ids
  security_groups    = var.security_group_ids
  # A stream is idle while a request waits in the queue; the gateway's heartbeat comes more often than this.
  idle_timeout               = var.idle_timeout_s
  enable_http2               = true
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  preserve_host_header       = true
  enable_deletion_protection = var.deletion_protection

  access_logs {
    enabled = true
    bucket  = var.access_log_bucket
    prefix  = "alb"
  }

  tags = merge(var.tags, { Name = var.name })
}

resource "aws_lb_target_group" "http" {
  name     = "${var.name}-http"
  vpc_id   = var.vpc_id
  port     = var.ports.http
  protocol = "HTTPS"
  # Streams end by themselves; an instance that leaves has drained before it is deregistered.
  deregistration_delay          = var.deregistration_delay_s
  load_balancing_algorithm_type = "least_outstanding_requests"

  health_check {
    protocol            = "HTTPS"
    path                = var.health_path
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  tags = var.tags
}

resource "aws_lb_target_group" "grpc" {
  name                          = "${var.name}-grpc"
  vpc_id                        = var.vpc_id
  port                          = var.ports.grpc
  protocol                      = "HTTPS"
  protocol_version              = "GRPC"
  deregistration_delay          = var.deregistration_delay_s
  load_balancing_algorithm_type = "least_outstanding_requests"

  health_check {
    protocol            = "HTTPS"
    path                = "/grpc.health.v1.Health/Check"
    matcher             = "0"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  tags = var.tags
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = var.tls_policy
  certificate_arn   = var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.http.arn
  }

  tags = var.tags
}

resource "aws_lb_listener_rule" "grpc" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 10

  condition {
    http_header {
      http_header_name = "content-type"
      values           = local.grpc_content_types
    }
  }

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.grpc.arn
  }

  tags = var.tags
}

# Operators' routes (metrics, admin) are for the private network; from outside they do not exist.
resource "aws_lb_listener_rule" "private_paths" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 1

  condition {
    path_pattern {
      values = var.private_paths
    }
  }

  action {
    type = "fixed-response"
    fixed_response {
      content_type = "application/json"
      message_body = jsonencode({ error = { message = "not found", type = "invalid_request_error", code = "not_found" } })
      status_code  = "404"
    }
  }

  tags = var.tags
}

resource "aws_route53_record" "public" {
  for_each = var.public_dns == null ? {} : { this = var.public_dns }

  zone_id = each.value.zone_id
  name    = each.value.name
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = true
  }
}
