output "primary_endpoint" {
  value = "${var.name}.redis.invalid"
}

output "port" {
  value = var.port
}

output "username" {
  value = "mesh"
}

output "password_secret_arn" {
  value = module.password.arn
}

output "replication_group_id" {
  value = var.name
}
