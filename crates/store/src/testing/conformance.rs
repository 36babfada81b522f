//! The contract suite: every store and every layer passes it.

// Filled in by the suite below.
