# Laid over modules/secret for `terraform test`: mock providers know no ephemeral resources (Terraform 1.11) and
# fail even where the module is overridden. Same variables and outputs; the fake AWS gets the real module.

resource "aws_secretsmanager_secret" "this" {
  name                    = "${var.name}/${var.purpose}"
  description             = var.description
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_window_days

  tags = var.tags
}

resource "aws_secretsmanager_secret_version" "this" {
  secret_id                = aws_secretsmanager_secret.this.id
  secret_string_wo         = "set-aside-for-the-mock-provider-0123456789-abcdefgh"
  secret_string_wo_version = var.generation
}
