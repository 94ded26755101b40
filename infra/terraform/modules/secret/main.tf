# One random secret in Secrets Manager. The value is an ephemeral resource handed over write-only: it
# passes through memory and never reaches the plan or the state. Raising `generation` replaces it.

ephemeral "aws_secretsmanager_random_password" "value" {
  password_length            = var.length
  exclude_punctuation        = true
  include_space              = false
  require_each_included_type = true
}

resource "aws_secretsmanager_secret" "this" {
  # checkov:skip=CKV2_AWS_57:replaced by raising `generation`: Ray and Redis take a new value at a node's start only
  name                    = "${var.name}/${var.purpose}"
  description             = var.description
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_window_days

  tags = var.tags
}

resource "aws_secretsmanager_secret_version" "this" {
  secret_id                = aws_secretsmanager_secret.this.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.value.random_password
  secret_string_wo_version = var.generation
}
