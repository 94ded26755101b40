output "endpoint" {
  description = "URL of the service: the public name, or else the load balancer's."
  value       = "https://${var.edge.public_dns == null ? module.edge.dns_name : var.edge.public_dns.name}"
}

output "bucket_names" {
  description = "Buckets by purpose."
  value       = module.storage.bucket_names
}

output "asg_names" {
  description = "Auto Scaling groups by pool."
  value       = module.ray_cluster.asg_names
}

output "node_events_queue_url" {
  description = "Queue of spot and lifecycle events."
  value       = module.spot_events.queue_url
}

output "head_host" {
  description = "Name of the head inside the VPC."
  value       = module.ray_cluster.head_host
}

output "web_acl_arn" {
  description = "The firewall."
  value       = module.edge.web_acl_arn
}

output "load_balancer_arn" {
  description = "The load balancer."
  value       = module.edge.load_balancer_arn
}

output "alarm_topic_arn" {
  description = "Topic that alarms go to."
  value       = module.observability.alarm_topic_arn
}

output "vpc_id" {
  description = "The VPC."
  value       = module.network.vpc_id
}

output "role_policies" {
  description = "The policy of each role as JSON, for audits."
  value       = module.iam.policies
}
