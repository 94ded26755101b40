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
