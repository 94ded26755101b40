output "primary_endpoint" {
  description = "Host name of the primary; follows a failover."
  value       = aws_elasticache_replication_group.this.primary_endpoint_address
}

output "port" {
  description = "TLS port of Redis."
  value       = aws_elasticache_replication_group.this.port
}

output "username" {
  description = "User that the mesh logs in as."
  value       = aws_elasticache_user.mesh.user_name
}

output "password_secret_arn" {
  description = "Secret that holds the user's password."
  value       = module.password.arn
}

output "replication_group_id" {
  description = "Id of the replication group (dimension of its alarms)."
  value       = aws_elasticache_replication_group.this.id
}
