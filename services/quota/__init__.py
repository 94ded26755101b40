"""What an API key may use: requests and tokens a minute, tokens a day; counted where all gateways see it."""
