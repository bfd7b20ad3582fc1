"""Quotas: what keys and tenants may use, what they have used, and what is said to a request that is over."""
