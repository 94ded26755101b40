output "queue_url" {
  description = "URL of the queue that the head reads."
  value       = aws_sqs_queue.events.url
}

output "queue_arn" {
  description = "ARN of the queue that the head reads."
  value       = aws_sqs_queue.events.arn
}

output "queue_name" {
  description = "Name of the queue (dimension of its alarms)."
  value       = aws_sqs_queue.events.name
}

output "dead_letter_queue_name" {
  description = "Name of the dead-letter queue; anything in it is an alarm."
  value       = aws_sqs_queue.dead.name
}

output "rule_arns" {
  description = "EventBridge rules by signal: interruption, rebalance, lifecycle."
  value       = { for signal, rule in aws_cloudwatch_event_rule.this : signal => rule.arn }
}
