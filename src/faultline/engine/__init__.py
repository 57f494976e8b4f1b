"""The engine: pure reconcilers that decide, and a driver that carries out what they decide."""
