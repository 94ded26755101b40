# The copy in another region. It has its own key: a KMS key does not leave its region.

resource "aws_kms_key" "replica" {
  for_each = var.replica == null ? {} : { this = var.replica }
  provider = aws.replica

  description             = "${var.name} storage replica"
  enable_key_rotation     = true
  deletion_window_in_days = each.value.kms_deletion_window_days
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AccountDecidesThroughIam"
      Effect    = "Allow"
      Principal = { AWS = "arn:${local.partition}:iam::${local.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })

  tags = merge(var.tags, { Name = "${var.name}-storage-replica" })
}

resource "aws_s3_bucket" "replica" {
  # checkov:skip=CKV_AWS_18:S3 alone writes here; who reads the originals is logged
  # checkov:skip=CKV2_AWS_62:nobody listens to events of copies
  for_each = local.replicas
  provider = aws.replica

  bucket        = each.value
  force_destroy = var.force_destroy

  tags = merge(var.tags, { Name = each.value, Purpose = "${each.key}-replica" })
}

resource "aws_s3_bucket_ownership_controls" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket                  = aws_s3_bucket.replica[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.replica["this"].arn
    }
  }
}

resource "aws_s3_bucket_policy" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyTls"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = "s3:*"
      Resource  = ["arn:${local.partition}:s3:::${each.value}", "arn:${local.partition}:s3:::${each.value}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.replica]
}

# Replication does not carry lifecycle expirations, so the copy forgets by its own rules.
resource "aws_s3_bucket_lifecycle_configuration" "replica" {
  for_each = local.replicas
  provider = aws.replica

  bucket = aws_s3_bucket.replica[each.key].id

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
    for_each = each.key == "models" ? [] : [each.key == "sessions" ? var.sessions_retention_days : var.logs_retention_days]
    content {
      id     = "expire"
      status = "Enabled"
      filter {}
      expiration {
        days = rule.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.replica]
}

# ---------------------------------------------------------------- the copier
resource "aws_iam_role" "replication" {
  for_each = var.replica == null ? {} : { this = var.replica }

  name                 = "${var.name}-s3-replication"
  permissions_boundary = var.permissions_boundary_arn
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "s3.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account_id } }
    }]
  })

  tags = var.tags
}

resource "aws_iam_role_policy" "replication" {
  for_each = aws_iam_role.replication

  name = "copy-objects"
  role = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadSourceBuckets"
        Effect   = "Allow"
        Action   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
        Resource = [for kind in local.copied : aws_s3_bucket.this[kind].arn]
      },
      {
        Sid      = "ReadSourceObjects"
        Effect   = "Allow"
        Action   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
        Resource = [for kind in local.copied : "${aws_s3_bucket.this[kind].arn}/*"]
      },
      {
        Sid      = "WriteCopies"
        Effect   = "Allow"
        Action   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
        Resource = [for kind in local.copied : "${aws_s3_bucket.replica[kind].arn}/*"]
      },
      {
        Sid       = "OpenSource"
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = [var.kms_key_arn]
        Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
      },
      {
        Sid       = "SealCopy"
        Effect    = "Allow"
        Action    = ["kms:Encrypt", "kms:GenerateDataKey"]
        Resource  = [aws_kms_key.replica["this"].arn]
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.replica.region}.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_s3_bucket_replication_configuration" "this" {
  for_each = local.copied

  bucket = aws_s3_bucket.this[each.key].id
  role   = aws_iam_role.replication["this"].arn

  rule {
    id       = "everything"
    priority = 0
    status   = "Enabled"
    filter {}

    # Deletions travel too: whoever asks to be forgotten is forgotten in both regions.
    delete_marker_replication {
      status = "Enabled"
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }

    destination {
      bucket        = aws_s3_bucket.replica[each.key].arn
      storage_class = "STANDARD_IA"
      encryption_configuration {
        replica_kms_key_id = aws_kms_key.replica["this"].arn
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this, aws_s3_bucket_versioning.replica]
}
