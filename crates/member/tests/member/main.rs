//! Members of a small cluster in one process: what each holds after faults, restarts and ring changes.

mod cluster;
mod conduct;
mod hand_over;
mod pull;
mod recovery;
