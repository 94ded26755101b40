output "bucket_names" {
  description = "Bucket names by purpose: models, sessions, logs, access."
  value       = { for kind, bucket in aws_s3_bucket.this : kind => bucket.id }
}

output "bucket_arns" {
  description = "Bucket ARNs by purpose: models, sessions, logs, access."
  value       = { for kind, bucket in aws_s3_bucket.this : kind => bucket.arn }
}

output "access_log_bucket" {
  description = "Bucket for load balancer logs; it is ready (policy attached) once this value is known."
  value       = aws_s3_bucket.this["access"].id
  depends_on  = [aws_s3_bucket_policy.this]
}

output "replica_bucket_names" {
  description = "Names of the copies in the replica region by purpose; empty without a replica."
  value       = local.replicas
}
