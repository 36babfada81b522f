//! Simulated parts for tests. Always compiled, so that it cannot rot; unreachable from configuration.
