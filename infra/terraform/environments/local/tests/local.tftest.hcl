# What all environments can be given (../variables.tf) and what this one can: each variable is refused for a bad value.
# The installation itself is applied to the fake AWS.

mock_provider "aws" {}

mock_provider "aws" {
  alias = "replica"
}

override_module {
  target = module.platform
  outputs = {
    endpoint          = "https://api", bucket_names = {}, asg_names = {}, head_host = "head", node_events_queue_url = "https://q"
    load_balancer_arn = "arn", web_acl_arn = "arn", vpc_id = "vpc-1"
  }
}

variables {
  region          = "eu-central-1"
  replica_region  = "eu-west-1"
  certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/abc"
  ami_ids         = { cpu = "ami-0123456789abcdef0", gpu = "ami-0123456789abcdef0" }
}

run "each_variable_is_checked" {
  command = plan

  variables {
    replica_region    = "eu-central-1"
    zones             = ["eu-central-1a", "eu-central-1b"]
    certificate_arn   = "x"
    public_dns        = { zone_id = "", name = "api.example.org" }
    ami_ids           = { cpu = "ubuntu", gpu = "ubuntu" }
    alarm_emails      = ["oncall"]
    models            = [{ name = "m", s3_uri = "https://x" }]
    release           = { s3_uri = "s3://b/r.tar.gz", sha256 = "x" }
    gpu_spot_max_size = 1
  }
  expect_failures = [
    var.replica_region, var.zones, var.certificate_arn, var.public_dns, var.ami_ids, var.alarm_emails,
    var.models, var.release, var.gpu_spot_max_size,
  ]
}

run "region_nonsense" {
  command = plan

  variables {
    region = "Frankfurt"
  }
  expect_failures = [var.region]
}
