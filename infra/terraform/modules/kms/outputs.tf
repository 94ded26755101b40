output "key_arns" {
  description = "Key ARNs by purpose: storage, ebs, redis, logs, events."
  value       = { for purpose, key in aws_kms_key.this : purpose => key.arn }
}

output "autoscaling_role_arn" {
  description = "Service-linked role that Auto Scaling groups must use to open the volume key."
  value       = aws_iam_service_linked_role.autoscaling.arn
}
