"""queue/routing"""
