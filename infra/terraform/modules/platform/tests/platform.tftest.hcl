# Each variable is refused for a bad value, at plan time. The messages are in variables.tf; a run passes only if every
# variable that it names is refused.

mock_provider "aws" {}

mock_provider "aws" {
  alias = "replica"
}

# The parts have tests of their own, and environments/local applies the whole: here only this module's checks.
override_module {
  target  = module.kms
  outputs = { key_arns = { storage = "arn:aws:kms:eu-central-1:123456789012:key/s", ebs = "arn:aws:kms:eu-central-1:123456789012:key/e", redis = "arn:aws:kms:eu-central-1:123456789012:key/r", logs = "arn:aws:kms:eu-central-1:123456789012:key/l", events = "arn:aws:kms:eu-central-1:123456789012:key/v" }, autoscaling_role_arn = "arn:aws:iam::123456789012:role/as" }
}

override_module {
  target  = module.network
  outputs = { vpc_id = "vpc-1", vpc_cidr = "10.40.0.0/16", public_subnet_ids = {}, private_subnet_ids = {}, data_subnet_ids = {}, private_cidrs = {} }
}

override_module {
  target  = module.security
  outputs = { group_ids = { edge = "sg-1", ingress = "sg-2", node = "sg-3", redis = "sg-4", efa = "sg-5" }, ports = { http = 8000, grpc = 9000, redis = 6379 } }
}

override_module {
  target  = module.storage
  outputs = { bucket_names = {}, bucket_arns = { models = "arn:aws:s3:::m", sessions = "arn:aws:s3:::s", logs = "arn:aws:s3:::l" }, access_log_bucket = "access", replica_bucket_names = {} }
}

override_module {
  target  = module.redis
  outputs = { primary_endpoint = "redis", port = 6379, username = "mesh", password_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x", replication_group_id = "mesh" }
}

override_module {
  target  = module.spot_events
  outputs = { queue_url = "https://sqs/q", queue_arn = "arn:aws:sqs:eu-central-1:123456789012:q", queue_name = "q", dead_letter_queue_name = "d", rule_arns = {} }
}

override_module {
  target  = module.edge
  outputs = { dns_name = "lb", load_balancer_arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/m/1", load_balancer_dimension = "app/m/1", target_group_arns = {}, target_group_dimensions = {}, web_acl_arn = "arn:aws:wafv2:eu-central-1:123456789012:regional/webacl/m/1" }
}

override_module {
  target  = module.iam
  outputs = { instance_profile_names = {}, role_arns = {}, policies = {} }
}

override_module {
  target  = module.ray_cluster
  outputs = { asg_names = {}, pool_plans = {}, head_host = "head.test.mesh.internal", zone_arn = "arn:aws:route53:::hostedzone/Z", ray_token_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:t" }
}

override_module {
  target  = module.observability
  outputs = { log_group_names = {}, alarm_topic_arn = "arn:aws:sns:eu-central-1:123456789012:t", alarm_names = [], prometheus_workspace_arn = "arn:aws:aps:eu-central-1:123456789012:workspace/w", prometheus_remote_write_url = "https://aps/w" }
}

variables {
  name            = "mesh-test"
  network         = { cidr = "10.40.0.0/16", availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  edge            = { certificate_arn = "arn:aws:acm:eu-central-1:123456789012:certificate/abc" }
  redis           = { node_type = "cache.r7g.large", replicas = 2 }
  internal_domain = "test.mesh.internal"
  alarm_emails    = ["oncall@example.org"]
  pools = {
    head     = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
    spot     = { tier = "spot", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], diversification_waiver = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", capacity = { min_size = 0, max_size = 4, on_demand_percentage = 0 }, fallback_pool = "fallback" }
    fallback = { tier = "fallback", ami_id = "ami-0123456789abcdef0", instance_types = ["g6.xlarge"], capacity = { min_size = 0, max_size = 4, on_demand_percentage = 100 } }
  }
}

run "each_variable_is_checked" {
  command = plan

  variables {
    name    = "Mesh"
    tags    = { "aws:x" = "y" }
    network = { cidr = "10.40.0.0/16", availability_zones = ["eu-central-1a"] }
    edge    = { certificate_arn = "x" }
    redis   = { node_type = "cache.r7g.large", replicas = 0 }
    pools = {
      head = { tier = "head", ingress = true, ami_id = "ami-0123456789abcdef0", instance_types = ["m7i.xlarge"], capacity = { min_size = 1, max_size = 1, on_demand_percentage = 100 } }
    }
    retention                = { log_days = 30 }
    replica_region           = "europe"
    internal_domain          = "internal"
    models                   = [{ name = "m", s3_uri = "https://x" }]
    release                  = { s3_uri = "s3://b/r.tar.gz", sha256 = "x" }
    alarm_emails             = []
    prometheus_rules         = { mesh = "alerts: []" }
    permissions_boundary_arn = "admin"
  }
  expect_failures = [
    var.name, var.tags, var.network, var.edge, var.redis, var.pools, var.retention, var.replica_region,
    var.internal_domain, var.models, var.release, var.alarm_emails, var.prometheus_rules,
    var.permissions_boundary_arn,
  ]
}
