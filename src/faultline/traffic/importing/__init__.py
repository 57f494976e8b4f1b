"""Scenarios from the documents of other tools: JMeter, HAR, Postman, OpenAPI."""
