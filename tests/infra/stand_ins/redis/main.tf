# Laid over modules/redis in the copy that is applied to the fake AWS, which has no replication groups with
# users: same variables, same outputs, the real password, no server. `terraform test` covers the real module.

module "password" {
  source = "../secret"

  name                 = var.name
  purpose              = "redis"
  description          = "Password of the mesh's Redis user; read by the head and the gateways."
  kms_key_arn          = var.secret_kms_key_arn
  generation           = var.password_generation
  recovery_window_days = var.secret_recovery_window_days
  tags                 = var.tags
}
