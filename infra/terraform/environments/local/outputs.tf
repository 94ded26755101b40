output "endpoint" {
  description = "URL of the service."
  value       = module.platform.endpoint
}

output "bucket_names" {
  description = "Buckets by purpose."
  value       = module.platform.bucket_names
}

output "asg_names" {
  description = "Auto Scaling groups by pool."
  value       = module.platform.asg_names
}

output "head_host" {
  description = "Name of the head inside the VPC."
  value       = module.platform.head_host
}

output "node_events_queue_url" {
  description = "Queue of spot and lifecycle events."
  value       = module.platform.node_events_queue_url
}

output "load_balancer_arn" {
  description = "The load balancer."
  value       = module.platform.load_balancer_arn
}

output "web_acl_arn" {
  description = "The firewall."
  value       = module.platform.web_acl_arn
}

output "vpc_id" {
  description = "The VPC."
  value       = module.platform.vpc_id
}
