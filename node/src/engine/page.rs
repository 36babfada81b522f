//! Page-aligned buffers: what direct writes need, without `unsafe`.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Bytes in a page: the unit of every write, and the block a power cut may tear at.
pub const PAGE: usize = 4096;

/// One aligned page.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Page([u8; PAGE]);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

/// A run of pages in memory.
pub struct PageBuf(Vec<Page>);

impl std::fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageBuf({} pages)", self.0.len())
    }
}

impl PageBuf {
    /// So many zeroed pages.
    ///
    /// # Panics
    /// When memory is exhausted, as every allocation does.
    #[allow(
        clippy::expect_used,
        reason = "out of memory ends the process everywhere in Rust"
    )]
    pub fn zeroed(pages: usize) -> PageBuf {
        PageBuf(Page::new_vec_zeroed(pages).expect("memory"))
    }

    /// How many pages.
    pub fn pages(&self) -> usize {
        self.0.len()
    }

    /// All pages.
    pub fn as_pages(&self) -> &[Page] {
        &self.0
    }

    /// All pages, to be changed.
    pub fn as_mut_pages(&mut self) -> &mut [Page] {
        &mut self.0
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_slice().as_bytes()
    }

    /// All bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice().as_mut_bytes()
    }
}

/// The pages as bytes.
pub fn page_bytes(pages: &[Page]) -> &[u8] {
    pages.as_bytes()
}

/// The pages as bytes, to be changed.
pub fn page_bytes_mut(pages: &mut [Page]) -> &mut [u8] {
    pages.as_mut_bytes()
}

/// Rounds up to whole pages, in bytes.
pub const fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE as u64) * PAGE as u64
}
