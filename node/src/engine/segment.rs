//! Segments: recycled append-only files of one size, and the table of all of them.
//!
//! ```text
//! page 0      header: generation, random seed, class, lane
//! page 1..    batches, each on a page boundary
//! end         table of contents and footer page, written when the segment is sealed
//! ```
//! Invariants: a reader holds an `Arc<Segment>`, and a file is reused only after its old `Segment` has no other
//! holder; the header is written as *free* and synced before the file is reused.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{
    checksum::{Salt, crc, salted},
    disk::DiskFile,
    page::{PAGE, PageBuf, round_up},
    record::{Encoding, Header},
    retention::put_millis,
    slot::{KeyHash, SizeClass},
};

/// Bytes of one row in a table of contents.
pub(crate) const TOC_ROW: usize = 48;
/// Bits of a row's size field that are the size; the others are the record's mark.
const ROW_SIZE_BITS: u32 = 44;
const ROW_SIZE_MASK: u64 = (1 << ROW_SIZE_BITS) - 1;

/// Where in its page a segment's header stands; the footer's page carries the same at the second place.
const COPIES_AT: [usize; 2] = [0, PAGE / 2];

const HEADER_MAGIC: u32 = 0x5a43_5347;
const FOOTER_MAGIC: u32 = 0x5a43_4654;

/// Which queue a segment belongs to. Numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Class {
    /// May be taken into use.
    Free = 0,
    /// New blobs and parts.
    Probation = 1,
    /// Blobs and parts that were used again, or are pinned.
    Main = 2,
    /// Entries and the store's own records.
    Entries = 3,
}

impl Class {
    const fn from_number(number: u8) -> Option<Class> {
        match number {
            0 => Some(Class::Free),
            1 => Some(Class::Probation),
            2 => Some(Class::Main),
            3 => Some(Class::Entries),
            _ => None,
        }
    }
}

/// What a segment's header page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) class: Class,
    pub(crate) lane: u8,
    pub(crate) salt: Salt,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    crc: U32,
    class: u8,
    lane: u8,
    spare: [u8; 6],
    generation: U64,
    seed: U64,
    store_id: [u8; 16],
}

impl SegmentHeader {
    /// The header page of a segment of this store.
    pub(crate) fn encode(&self, store_id: [u8; 16], page: &mut [u8]) {
        let mut raw = RawHeader {
            magic: HEADER_MAGIC.into(),
            crc: 0.into(),
            class: self.class as u8,
            lane: self.lane,
            spare: [0; 6],
            generation: self.salt.generation.into(),
            seed: self.salt.seed.into(),
            store_id,
        };
        raw.crc = crc(&raw.as_bytes()[8..]).into();
        for at in COPIES_AT {
            page[at..at + size_of::<RawHeader>()].copy_from_slice(raw.as_bytes());
        }
    }

    /// Reads a header page, whichever copy passes; `None` when it is not one of this store.
    pub(crate) fn decode(store_id: [u8; 16], page: &[u8]) -> Option<SegmentHeader> {
        COPIES_AT
            .iter()
            .find_map(|at| Self::decode_copy(store_id, page.get(*at..)?))
    }

    fn decode_copy(store_id: [u8; 16], page: &[u8]) -> Option<SegmentHeader> {
        let (raw, _) = RawHeader::ref_from_prefix(page).ok()?;
        let sound = raw.magic.get() == HEADER_MAGIC
            && crc(&raw.as_bytes()[8..]) == raw.crc.get()
            && raw.store_id == store_id;
        if !sound {
            return None;
        }
        Some(SegmentHeader {
            class: Class::from_number(raw.class)?,
            lane: raw.lane,
            salt: Salt {
                generation: raw.generation.get(),
                seed: raw.seed.get(),
            },
        })
    }
}

/// A row of a table of contents: enough to rebuild an index slot and to judge whether a record is live.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(crate) struct TocRow {
    hash: [u8; 16],
    offset_units: U32,
    stored: U32,
    kind: u8,
    function: u8,
    flags: u8,
    unreadable: u8,
    namespace: U32,
    version: U64,
    raw_size: U64,
}

const _: () = assert!(size_of::<TocRow>() == TOC_ROW);

impl TocRow {
    /// The row of a record.
    pub(crate) fn new(hash: KeyHash, offset: u64, header: &Header) -> TocRow {
        TocRow {
            hash: hash.0.to_le_bytes(),
            offset_units: ((offset / 8) as u32).into(),
            stored: header.stored.into(),
            kind: header.kind as u8,
            function: header.function,
            flags: header.flags as u8,
            unreadable: 0,
            namespace: header.namespace.into(),
            version: header.version.into(),
            raw_size: (header.raw_size & ROW_SIZE_MASK | u64::from(header.mark()) << ROW_SIZE_BITS)
                .into(),
        }
    }

    /// The row of a live record whose header has rotted: it keeps an older version of its key from coming back.
    pub(crate) fn unreadable(hash: KeyHash, offset: u64, header: &Header) -> TocRow {
        TocRow {
            unreadable: 1,
            ..TocRow::new(hash, offset, header)
        }
    }

    /// Whether only shard and fingerprint of the hash are known.
    pub(crate) const fn is_unreadable(&self) -> bool {
        self.unreadable != 0
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    pub(crate) fn hash(&self) -> KeyHash {
        KeyHash(u128::from_le_bytes(self.hash))
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.offset_units.get()) * 8
    }

    /// See [`Header::mark`].
    pub(crate) fn mark(&self) -> u32 {
        (self.raw_size.get() >> ROW_SIZE_BITS) as u32
    }

    /// The record's header, but for encoding, part number, key, writer and writing, which a table of contents does not
    /// hold.
    pub(crate) fn header(&self) -> Option<Header> {
        Some(Header {
            kind: super::record::Kind::from_number(self.kind)?,
            function: self.function,
            encoding: Encoding::Identity,
            flags: u16::from(self.flags),
            namespace: self.namespace.get(),
            part: 0,
            stored: self.stored.get(),
            raw_size: self.raw_size.get() & ROW_SIZE_MASK,
            version: self.version.get(),
            writer: 0,
            writing: 0,
            key: [0; 32],
        })
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFooter {
    magic: U32,
    crc: U32,
    toc_offset: U32,
    toc_rows: U32,
    toc_crc: U32,
    spare: U32,
    sealed_millis: U64,
    last_batch: U64,
}

/// What a footer page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Where the table of contents starts, in bytes.
    pub(crate) toc_offset: u64,
    /// Rows in it.
    pub(crate) rows: u32,
    /// Wall clock when it was sealed.
    pub(crate) sealed_millis: u64,
    /// Number of the last batch in the segment.
    pub(crate) last_batch: u64,
    toc_crc: u32,
}

/// Pages that a table of contents with its footer takes.
pub(crate) const fn footer_bytes(rows: u64) -> u64 {
    round_up(rows * TOC_ROW as u64) + PAGE as u64
}

/// Table of contents and footer as they go to the end of the segment, and the offset to write them at.
pub(crate) fn encode_footer(
    rows: &[TocRow],
    segment_bytes: u64,
    store_id: [u8; 16],
    header: &SegmentHeader,
    sealed_millis: u64,
    last_batch: u64,
) -> (PageBuf, u64) {
    let bytes = footer_bytes(rows.len() as u64);
    let mut pages = PageBuf::zeroed(bytes as usize / PAGE);
    let toc = rows.as_bytes();
    pages.bytes_mut()[..toc.len()].copy_from_slice(toc);
    let offset = segment_bytes - bytes;
    let mut raw = RawFooter {
        magic: FOOTER_MAGIC.into(),
        crc: 0.into(),
        toc_offset: (offset as u32).into(),
        toc_rows: (rows.len() as u32).into(),
        toc_crc: crc(toc).into(),
        spare: 0.into(),
        sealed_millis: sealed_millis.into(),
        last_batch: last_batch.into(),
    };
    let footer_at = segment_bytes - PAGE as u64;
    raw.crc = salted(header.salt, footer_at, [&raw.as_bytes()[8..], &[]]).into();
    let at = bytes as usize - PAGE;
    header.encode(store_id, &mut pages.bytes_mut()[at..]);
    pages.bytes_mut()[at..at + size_of::<RawFooter>()].copy_from_slice(raw.as_bytes());
    (pages, offset)
}

/// Reads a segment's table of contents from its end; `None` when it was not sealed or the table does not pass.
pub(crate) fn read_footer(
    file: &dyn DiskFile,
    segment_bytes: u64,
    salt: Salt,
) -> io::Result<Option<(Footer, Vec<TocRow>)>> {
    let mut page = vec![0; PAGE];
    let footer_at = segment_bytes - PAGE as u64;
    if file.read_at(&mut page, footer_at)? < PAGE {
        return Ok(None);
    }
    let Some(footer) = decode_footer(&page, footer_at, segment_bytes, salt) else {
        return Ok(None);
    };
    let Ok(mut rows) = TocRow::new_vec_zeroed_rows(footer.rows as usize) else {
        return Ok(None);
    };
    let read = file.read_at(rows.as_mut_slice().as_mut_bytes(), footer.toc_offset)?;
    let whole = read == rows.len() * TOC_ROW && crc(rows.as_slice().as_bytes()) == footer.toc_crc;
    Ok(whole.then_some((footer, rows)))
}

impl TocRow {
    fn new_vec_zeroed_rows(rows: usize) -> Result<Vec<TocRow>, zerocopy::AllocError> {
        use zerocopy::FromZeros;
        TocRow::new_vec_zeroed(rows)
    }
}

fn decode_footer(page: &[u8], at: u64, segment_bytes: u64, salt: Salt) -> Option<Footer> {
    let (raw, _) = RawFooter::ref_from_prefix(page).ok()?;
    let sound = raw.magic.get() == FOOTER_MAGIC
        && salted(salt, at, [&raw.as_bytes()[8..], &[]]) == raw.crc.get();
    let rows = u64::from(raw.toc_rows.get());
    let fits = u64::from(raw.toc_offset.get()) + footer_bytes(rows) == segment_bytes;
    (sound && fits).then_some(Footer {
        toc_offset: u64::from(raw.toc_offset.get()),
        rows: raw.toc_rows.get(),
        sealed_millis: raw.sealed_millis.get(),
        last_batch: raw.last_batch.get(),
        toc_crc: raw.toc_crc.get(),
    })
}

/// What may happen to a segment next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Its lane appends to it.
    Open = 0,
    /// No more appends; the footer is not there yet (or could not be written).
    Closed = 1,
    /// The footer is durable.
    Sealed = 2,
}

/// A segment in use.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) class: Class,
    pub(crate) lane: u8,
    pub(crate) salt: Salt,
    state: AtomicU8,
    /// End of what was written and synced, in bytes.
    tail: AtomicU64,
    /// Bytes of live records, by size class.
    live: AtomicI64,
    /// Wall clock of the last batch, for touches after a restart.
    pub(crate) last_batch_millis: AtomicU64,
    /// Number of the last batch.
    pub(crate) last_batch: AtomicU64,
    /// When the oldest and the newest record in it were put, in milliseconds.
    oldest: AtomicU64,
    newest: AtomicU64,
    /// When something in it expires next, as far as known, and under which edition of the rules.
    next_expiry: Mutex<(u64, u64)>,
    /// Of everything written: bytes of payload as clients sent it and as it is stored, and of whole records.
    written: [AtomicU64; 3],
    /// Rows of everything written, while they are few; `None` once they are not, or when another process wrote them.
    rows: Mutex<Option<Vec<TocRow>>>,
}

/// Most rows of an open segment kept in RAM: all of a segment of parts, so that sealing it reads nothing.
const KEPT_ROWS: usize = 8192;

impl Segment {
    /// A segment whose first `tail` bytes are readable.
    pub(crate) fn new(
        id: u32,
        file: Arc<dyn DiskFile>,
        header: &SegmentHeader,
        tail: u64,
        state: State,
    ) -> Segment {
        Segment {
            id,
            file,
            class: header.class,
            lane: header.lane,
            salt: header.salt,
            state: AtomicU8::new(state as u8),
            tail: AtomicU64::new(tail),
            live: AtomicI64::new(0),
            last_batch_millis: AtomicU64::new(0),
            last_batch: AtomicU64::new(0),
            oldest: AtomicU64::new(u64::MAX),
            newest: AtomicU64::new(0),
            next_expiry: Mutex::new((0, 0)),
            written: Default::default(),
            rows: Mutex::new((state == State::Open).then(Vec::new)),
        }
    }

    /// Keeps the rows of records that were synced, while they are few.
    pub(crate) fn keep_rows(&self, new: impl ExactSizeIterator<Item = TocRow>) {
        let mut rows = self.rows.lock();
        match rows.as_mut() {
            Some(kept) if kept.len() + new.len() <= KEPT_ROWS => kept.extend(new),
            _ => *rows = None,
        }
    }

    /// Takes note of a record that lies in it: its age and sizes.
    pub(crate) fn note(&self, header: &Header) {
        let put = put_millis(header.version);
        self.oldest.fetch_min(put, Ordering::Relaxed);
        self.newest.fetch_max(put, Ordering::Relaxed);
        let record = SizeClass::of(header.record_len()).bytes();
        let sizes = [
            header.raw_payload(),
            u64::from(header.stored),
            record as u64,
        ];
        for (sum, size) in self.written.iter().zip(sizes) {
            sum.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// When the oldest and the newest record in it were put, in milliseconds. Nothing in it: `(MAX, 0)`.
    pub(crate) fn ages(&self) -> (u64, u64) {
        let load = |millis: &AtomicU64| millis.load(Ordering::Relaxed);
        (load(&self.oldest), load(&self.newest))
    }

    /// When something in it expires next under this edition of the rules; 0 when that is not known.
    pub(crate) fn next_expiry(&self, edition: u64) -> u64 {
        let (millis, known) = *self.next_expiry.lock();
        if known == edition { millis } else { 0 }
    }

    /// Remembers when something in it expires next.
    pub(crate) fn set_next_expiry(&self, millis: u64, edition: u64) {
        *self.next_expiry.lock() = (millis, edition);
    }

    /// Payload bytes of its live records as clients sent them and as stored: the live share of what was written.
    pub(crate) fn live_payload(&self) -> (u64, u64) {
        let [raw, stored, records] = [0, 1, 2].map(|at: usize| {
            let sum = self.written[at].load(Ordering::Relaxed);
            u128::from(sum)
        });
        let live = u128::from(self.live_bytes()).min(records);
        let share = |sum: u128| u64::try_from(sum * live / records.max(1)).unwrap_or(u64::MAX);
        (share(raw), share(stored))
    }

    /// All rows, if they were kept; asked once, when the segment is sealed.
    pub(crate) fn take_rows(&self) -> Option<Vec<TocRow>> {
        self.rows.lock().take()
    }

    /// What its header page says.
    pub(crate) const fn header(&self) -> SegmentHeader {
        SegmentHeader {
            class: self.class,
            lane: self.lane,
            salt: self.salt,
        }
    }

    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    pub(crate) fn set_tail(&self, tail: u64) {
        self.tail.store(tail, Ordering::Release);
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Open,
            1 => State::Closed,
            _ => State::Sealed,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        u64::try_from(self.live.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(crate) fn add_live(&self, bytes: usize) {
        self.live.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    pub(crate) fn sub_live(&self, bytes: usize) {
        self.live.fetch_sub(signed(bytes), Ordering::Relaxed);
    }
}

/// A record's size for the count of live bytes.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// All segments in use, by number.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable(RwLock<Vec<Option<Arc<Segment>>>>);

impl SegmentTable {
    /// The segment of this number, if it is in use.
    pub(crate) fn get(&self, id: u32) -> Option<Arc<Segment>> {
        self.0.read().get(id as usize)?.clone()
    }

    pub(crate) fn put(&self, segment: Arc<Segment>) {
        let mut table = self.0.write();
        let at = segment.id as usize;
        if table.len() <= at {
            table.resize(at + 1, None);
        }
        table[at] = Some(segment);
    }

    pub(crate) fn take(&self, id: u32) -> Option<Arc<Segment>> {
        self.0.write().get_mut(id as usize)?.take()
    }

    /// All segments in use, oldest generation first.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        let mut all: Vec<_> = self.0.read().iter().flatten().cloned().collect();
        all.sort_by_key(|segment| segment.salt.generation);
        all
    }

    /// Changes the live bytes of a segment, if it is still in use.
    pub(crate) fn add_live(&self, id: u32, bytes: usize) {
        if let Some(Some(segment)) = self.0.read().get(id as usize) {
            segment.add_live(bytes);
        }
    }

    /// Changes the live bytes of a segment, if it is still in use.
    pub(crate) fn sub_live(&self, id: u32, bytes: usize) {
        if let Some(Some(segment)) = self.0.read().get(id as usize) {
            segment.sub_live(bytes);
        }
    }
}

/// Name of a segment's file.
pub(crate) fn file_name(id: u32) -> String {
    format!("segments/{id:06}.seg")
}

/// The inverse of [`file_name`]; `None` for foreign files.
pub(crate) fn parse_file_name(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("segments/")?.strip_suffix(".seg")?;
    let canonical = digits.len() == 6 || (digits.len() > 6 && !digits.starts_with('0'));
    digits
        .parse()
        .ok()
        .filter(|_| canonical && digits.bytes().all(|b| b.is_ascii_digit()))
}
