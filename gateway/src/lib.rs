//! The gateway: every client dialect on one port, in front of stores given as trait objects.
