output "instance_profile_names" {
  description = "Instance profiles by kind of node (worker, ingress, head), once their policies are attached."
  value       = { for kind, profile in aws_iam_instance_profile.this : kind => profile.name }
  depends_on  = [aws_iam_role_policy.this, aws_iam_role_policy_attachment.session_manager]
}

output "role_arns" {
  description = "Role ARNs by kind of node (worker, ingress, head)."
  value       = { for kind, role in aws_iam_role.this : kind => role.arn }
}

output "policies" {
  description = "The policy of each role as JSON, for audits."
  value       = { for kind, policy in aws_iam_role_policy.this : kind => policy.policy }
}
