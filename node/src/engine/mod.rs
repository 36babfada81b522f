//! The segment store engine.

pub mod disk;
pub mod page;
