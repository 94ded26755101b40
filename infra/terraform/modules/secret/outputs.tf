output "arn" {
  description = "ARN of the secret; it has a value once this output is known."
  value       = aws_secretsmanager_secret.this.arn
  depends_on  = [aws_secretsmanager_secret_version.this]
}

output "version_id" {
  description = "Id of the current version; changes when the value does."
  value       = aws_secretsmanager_secret_version.this.version_id
}
