"""Where a lease points: filters, then scorers, then the picker."""
