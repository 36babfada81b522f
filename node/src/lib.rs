//! A node: one disk, one segment store, the blob and entry contracts over it.
//!
//! Not here: routing, dialects, rights (`gateway`). See `engine/mod.rs` for how the store works.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "ZimCache's store needs Linux (O_DIRECT, preadv2, fdatasync); run it in a Linux VM or container"
);

pub mod engine;
pub mod testing;

pub use engine::disk::{Disk, RealDisk};
