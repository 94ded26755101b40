output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "vpc_cidr" {
  description = "IPv4 block of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "public_subnet_ids" {
  description = "Public subnet ids by availability zone (load balancer only)."
  value       = { for zone, subnet in aws_subnet.public : zone => subnet.id }
}

output "private_subnet_ids" {
  description = "Private subnet ids by availability zone (Ray nodes)."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }
}

output "data_subnet_ids" {
  description = "Data subnet ids by availability zone (Redis)."
  value       = { for zone, subnet in aws_subnet.data : zone => subnet.id }
}

output "private_cidrs" {
  description = "IPv4 blocks of the private subnets by availability zone."
  value       = local.private_cidrs
}
