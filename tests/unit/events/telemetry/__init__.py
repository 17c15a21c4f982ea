"""The telemetry port and its adapter."""
