# What only this environment can be given, beside ../variables.tf.

variable "gpu_spot_max_size" {
  description = "Upper size of pool gpu-spot; tests change it to see an update in place."
  type        = number
  default     = 6
  nullable    = false

  validation {
    condition     = var.gpu_spot_max_size >= 2 && var.gpu_spot_max_size <= 24
    error_message = "Set gpu_spot_max_size between 2 and 24."
  }
}
