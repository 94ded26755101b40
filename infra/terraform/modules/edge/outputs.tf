output "dns_name" {
  description = "Name of the load balancer."
  value       = aws_lb.this.dns_name
}

output "load_balancer_arn" {
  description = "ARN of the load balancer."
  value       = aws_lb.this.arn
}

output "load_balancer_dimension" {
  description = "The load balancer's name in CloudWatch's metrics."
  value       = aws_lb.this.arn_suffix
}

output "target_group_arns" {
  description = "Target groups by protocol: http, grpc. Usable once the listener exists."
  value       = { http = aws_lb_target_group.http.arn, grpc = aws_lb_target_group.grpc.arn }
  depends_on  = [aws_lb_listener.https, aws_lb_listener_rule.grpc]
}

output "target_group_dimensions" {
  description = "Names of the target groups in CloudWatch's metrics: http, grpc."
  value       = { http = aws_lb_target_group.http.arn_suffix, grpc = aws_lb_target_group.grpc.arn_suffix }
}

output "web_acl_arn" {
  description = "ARN of the firewall."
  value       = aws_wafv2_web_acl.this.arn
}
