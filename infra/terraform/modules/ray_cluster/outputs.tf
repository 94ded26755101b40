output "asg_names" {
  description = "Auto Scaling groups by pool."
  value       = { for pool, p in module.pool : pool => p.asg_name }
}

output "pool_plans" {
  description = "What the pool controller must know of each pool."
  value       = local.pool_plans
}

output "head_host" {
  description = "Name under which nodes find the head."
  value       = local.head_record
}

output "zone_arn" {
  description = "ARN of the private zone."
  value       = aws_route53_zone.internal.arn
}

output "ray_token_secret_arn" {
  description = "Secret that holds Ray's token."
  value       = module.ray_token.arn
}
