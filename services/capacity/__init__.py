"""Machines: which there are, which are about to go, how many there should be.

The life of a notice: `imds_watch` or `sqs_events` (AWS speaks) → `notices` (one meaning) → `drain` (what to do,
in which order) → `ray_drain`, `nodes` (it is done). The size of the pools: `queue_demand` (the queue speaks) →
`demand` (how many nodes that is worth) → `pool_plan` (what each group is told). `controller` runs both.
"""
