terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

# Every service at one address on this machine; the keys open nothing anywhere.
provider "aws" {
  region                      = var.region
  access_key                  = "local"
  secret_key                  = "local"
  s3_use_path_style           = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = false
  skip_credentials_validation = false

  default_tags {
    tags = local.tags
  }
}

provider "aws" {
  alias                       = "replica"
  region                      = var.replica_region
  access_key                  = "local"
  secret_key                  = "local"
  s3_use_path_style           = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = false
  skip_credentials_validation = false

  default_tags {
    tags = local.tags
  }
}
