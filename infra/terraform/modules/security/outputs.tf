output "group_ids" {
  description = "Security group ids by role: edge, ingress, node, efa, redis."
  value       = { for role, group in aws_security_group.this : role => group.id }
}

output "ports" {
  description = "The ports that the rules opened, with defaults filled in."
  value       = var.ports
}
