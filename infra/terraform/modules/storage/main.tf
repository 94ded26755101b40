# Four buckets in the home region and a copy of three of them in another:
#   models    weights; every node reads them
#   sessions  conversations; deleted with the person or after sessions_retention_days
#   logs      audit and application logs; six months or more
#   access    access logs of the load balancer and of the other buckets
# S3 keeps each object in three zones; the replica adds a region. Names hold the account and the region,
# so that they are known before anything exists and no other account can take them first.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name

  names    = { for kind in ["models", "sessions", "logs", "access"] : kind => "${var.name}-${kind}-${local.account_id}-${local.region}" }
  private  = toset(["models", "sessions", "logs"])
  copied   = var.replica == null ? toset([]) : local.private
  replicas = { for kind in local.copied : kind => "${var.name}-${kind}-${local.account_id}-${var.replica.region}" }
}

resource "aws_s3_bucket" "this" {
  # checkov:skip=CKV_AWS_18:the access-log bucket cannot log to itself; the others do, in a resource of their own
  # checkov:skip=CKV_AWS_145:encryption is a resource of its own in a for_each, which checkov does not join; access logs take S3's keys only
  # checkov:skip=CKV2_AWS_62:nobody listens to bucket events: the mesh finds weights and logs by name
  for_each = local.names

  bucket        = each.value
  force_destroy = var.force_destroy

  tags = merge(var.tags, { Name = each.value, Purpose = each.key })
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.names

  bucket = aws_s3_bucket.this[each.key].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.names

  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.names

  bucket = aws_s3_bucket.this[each.key].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "private" {
  for_each = local.private

  bucket = aws_s3_bucket.this[each.key].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

# Load balancers and S3 itself can deliver access logs only to buckets with S3's own keys.
resource "aws_s3_bucket_server_side_encryption_configuration" "access" {
  bucket = aws_s3_bucket.this["access"].id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_logging" "private" {
  for_each = local.private

  bucket        = aws_s3_bucket.this[each.key].id
  target_bucket = aws_s3_bucket.this["access"].id
  target_prefix = "s3/${each.key}/"

  # S3 checks when it is told, not when it delivers, that it may write there.
  depends_on = [aws_s3_bucket_policy.this]
}

# ---------------------------------------------------------------- who may, and only over TLS
locals {
  tls_only = { for kind, name in local.names : kind => {
    Sid       = "OnlyTls12AndLater"
    Effect    = "Deny"
    Principal = { AWS = "*" }
    Action    = "s3:*"
    Resource  = ["arn:${local.partition}:s3:::${name}", "arn:${local.partition}:s3:::${name}/*"]
    Condition = { Bool = { "aws:SecureTransport" = "false" } }
  } }
  old_tls = { for kind, name in local.names : kind => {
    Sid       = "NoOldTls"
    Effect    = "Deny"
    Principal = { AWS = "*" }
    Action    = "s3:*"
    Resource  = ["arn:${local.partition}:s3:::${name}", "arn:${local.partition}:s3:::${name}/*"]
    Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
  } }
  # A client that names another key (or none) is refused; one that names nothing gets the default.
  other_key = { for kind in local.private : kind => {
    Sid       = "OnlyOurKey"
    Effect    = "Deny"
    Principal = { AWS = "*" }
    Action    = "s3:PutObject"
    Resource  = "arn:${local.partition}:s3:::${local.names[kind]}/*"
    Condition = { StringNotEqualsIfExists = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = var.kms_key_arn } }
  } }
  deliver_access_logs = concat(
    [{
      Sid       = "LoadBalancerDelivers"
      Effect    = "Allow"
      Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
      Action    = "s3:PutObject"
      Resource  = "arn:${local.partition}:s3:::${local.names["access"]}/alb/AWSLogs/${local.account_id}/*"
      Condition = { ArnLike = { "aws:SourceArn" = "arn:${local.partition}:elasticloadbalancing:${local.region}:${local.account_id}:loadbalancer/*" } }
    }],
    # Each bucket writes under its own prefix and nowhere else.
    [for kind in sort(local.private) : {
      Sid       = "S3Delivers${title(kind)}"
      Effect    = "Allow"
      Principal = { Service = "logging.s3.amazonaws.com" }
      Action    = "s3:PutObject"
      Resource  = "arn:${local.partition}:s3:::${local.names["access"]}/s3/${kind}/*"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:s3:::${local.names[kind]}" }
      }
    }],
  )
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.names

  bucket = aws_s3_bucket.this[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [local.tls_only[each.key], local.old_tls[each.key]],
      [for kind, statement in local.other_key : statement if kind == each.key],
      [for statement in local.deliver_access_logs : statement if each.key == "access"],
    )
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

# ---------------------------------------------------------------- how long
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.names

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    id     = "abandoned-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = each.key == "sessions" ? 1 : var.noncurrent_days
    }
  }

  dynamic "rule" {
    for_each = contains(["logs", "access"], each.key) ? [var.logs_retention_days] : []
    content {
      id     = "cold-then-gone"
      status = "Enabled"
      filter {}
      transition {
        days          = 30
        storage_class = "STANDARD_IA"
      }
      transition {
        days          = 90
        storage_class = "GLACIER_IR"
      }
      expiration {
        days = rule.value
      }
    }
  }

  # Old versions of sessions go after one day: a deleted person must be gone, not merely hidden.
  dynamic "rule" {
    for_each = each.key == "sessions" ? [var.sessions_retention_days] : []
    content {
      id     = "forget-sessions"
      status = "Enabled"
      filter {}
      expiration {
        days = rule.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}
