//! Opening a store: whatever was acknowledged is found again, nothing else needs to be.
//!
//! Sealed segments are read from their tables of contents, others scanned. The highest version of a key wins, in
//! whatever order segments are read. Recovery writes nothing but a new store's first files, so doing it again gives
//! the same state.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use zimcache_types::Namespace;

use super::{
    disk::{Disk, DiskFile},
    meta::Meta,
    notes::Notes,
    page::PAGE,
    record::{self, Header, Kind, flag},
    retention::{put_millis, version_at},
    scan::{Scanned, scan},
    segment::{Class, Segment, SegmentHeader, State, TocRow, parse_file_name, read_footer},
    shared::{Key, LEASE_TICKS, LaneId, Shared, TICK_MILLIS, is_kept, slot_kind, tick_of},
    slot::{self, KeyHash, Location, View},
};

/// Highest version that is believed: no clock shows the year 100 000, and versions must be able to go on from here.
pub(crate) const MAX_VERSION: u64 = 1 << 62;
/// Highest number of a namespace that is believed, for the same reason.
const MAX_NAMESPACE: u32 = 1 << 30;

/// Segment files that hold something, oldest generation first.
pub(crate) type InUse = Vec<(u32, Arc<dyn DiskFile>, SegmentHeader)>;

/// The segment files of a store, sorted.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Numbers of all files that exist.
    pub(crate) found: Vec<u32>,
    pub(crate) free: Vec<(u32, Arc<dyn DiskFile>)>,
    pub(crate) in_use: InUse,
    pub(crate) generation: u64,
}

/// Reads every segment's header. Files with foreign names are left alone.
pub(crate) fn find_files(disk: &dyn Disk, meta: &Meta) -> io::Result<Files> {
    let mut files = Files::default();
    let mut ids: Vec<u32> = disk
        .list()?
        .iter()
        .filter_map(|name| parse_file_name(name))
        .collect();
    ids.sort_unstable();
    for id in ids {
        let Some(file) = disk.open(&super::segment::file_name(id))? else {
            continue;
        };
        files.found.push(id);
        match read_segment_header(file.as_ref(), meta)? {
            Some(header) => {
                files.generation = files.generation.max(header.salt.generation);
                if header.class == Class::Free {
                    files.free.push((id, file));
                } else {
                    files.in_use.push((id, file, header));
                }
            }
            None => files.free.push((id, file)),
        }
    }
    files
        .in_use
        .sort_by_key(|(_, _, header)| header.salt.generation);
    Ok(files)
}

/// The header from the first page, or from the copy in the footer's page.
fn read_segment_header(file: &dyn DiskFile, meta: &Meta) -> io::Result<Option<SegmentHeader>> {
    let mut page = vec![0; PAGE];
    let read = file.read_at(&mut page, 0)?;
    if let Some(header) = SegmentHeader::decode(meta.store_id, &page[..read]) {
        return Ok(Some(header));
    }
    let read = file.read_at(&mut page, meta.segment_bytes - PAGE as u64)?;
    Ok(SegmentHeader::decode(meta.store_id, &page[..read]))
}

/// What recovery learnt besides the index.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Highest batch number of each lane.
    pub(crate) last_batch: [u64; LaneId::ALL.len()],
    /// Bad records found while scanning.
    pub(crate) damaged: u64,
    /// Segments that had to be scanned.
    pub(crate) scanned: usize,
    /// Segments whose scan found nothing: they can be used again.
    pub(crate) empty: Vec<u32>,
    namespaces: HashMap<Namespace, (u64, u32)>,
    /// Records that say what was leased.
    touches: Vec<(Location, Header)>,
    /// Which pins came and went after records were written.
    notes: Notes,
    /// Numbers of the namespaces that have pinned records.
    pinned_in: HashSet<u32>,
}

/// Fills the index from the segments in use.
pub(crate) fn recover(shared: &Shared, files: InUse) -> io::Result<Recovered> {
    let mut recovered = Recovered {
        notes: Notes::read(shared, &files)?,
        ..Recovered::default()
    };
    for (id, file, header) in files {
        let segment = Segment::new(id, file, &header, shared.meta.segment_bytes, State::Closed);
        let segment = Arc::new(segment);
        shared.segments.put(Arc::clone(&segment));
        recover_segment(shared, &segment, &mut recovered)?;
    }
    let mut namespaces = shared.namespaces.write();
    for (name, (_, number)) in recovered.namespaces.drain() {
        namespaces.insert(name, number);
    }
    drop(namespaces);
    for (location, header) in recovered.touches.drain(..) {
        if let Some(segment) = shared.segments.get(location.segment) {
            shared.recover_touches(&segment, location, &header)?;
        }
    }
    if recovered
        .pinned_in
        .iter()
        .any(|number| shared.is_purged(*number))
    {
        shared.drop_purged_pins();
    }
    recovered.notes = Notes::default();
    Ok(recovered)
}

fn recover_segment(
    shared: &Shared,
    segment: &Arc<Segment>,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let bytes = shared.meta.segment_bytes;
    let last_batch = match read_footer(segment.file.as_ref(), bytes, segment.salt)? {
        Some((footer, rows)) => {
            segment.set_state(State::Sealed);
            segment.set_tail(footer.toc_offset);
            recover_time(shared, segment, footer.sealed_millis);
            for row in rows {
                recover_row(shared, segment, row, recovered)?;
            }
            footer.last_batch
        }
        None => scan_segment(shared, segment, recovered)?.last_batch,
    };
    if let Some(highest) = recovered.last_batch.get_mut(usize::from(segment.lane)) {
        *highest = last_batch.max(*highest);
    }
    Ok(())
}

fn scan_segment(
    shared: &Shared,
    segment: &Arc<Segment>,
    recovered: &mut Recovered,
) -> io::Result<Scanned> {
    let mut failed = None;
    let scanned = scan(
        segment.file.as_ref(),
        shared.meta.segment_bytes,
        segment.salt,
        &shared.meta.hash_key,
        |row, millis| {
            if failed.is_none() {
                recover_time(shared, segment, millis);
                failed = recover_row(shared, segment, row, recovered).err();
            }
        },
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    segment.set_tail(scanned.end);
    recover_time(shared, segment, scanned.last_millis);
    recovered.scanned += 1;
    recovered.damaged += scanned.rotten;
    if scanned.rotten > 0 {
        tracing::error!(
            segment = segment.id,
            records = scanned.rotten,
            "acknowledged records are damaged"
        );
    }
    if scanned.records == 0 {
        recovered.empty.push(segment.id);
    }
    Ok(scanned)
}

/// Notes when a batch was written, before any lease in it is recovered: leases count on from the latest time on disk,
/// however far behind the wall clock is now.
fn recover_time(shared: &Shared, segment: &Segment, millis: u64) {
    if millis <= put_millis(MAX_VERSION) {
        segment.last_batch_millis.fetch_max(millis, Relaxed);
        shared.last_version.fetch_max(version_at(millis), Relaxed);
    }
}

/// Takes one record into the index, if it is the newest of its key so far.
fn recover_row(
    shared: &Shared,
    segment: &Segment,
    row: TocRow,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let Some(header) = row.header().filter(|header| header.version <= MAX_VERSION) else {
        return Ok(());
    };
    let location = Location {
        segment: segment.id,
        offset: row.offset(),
    };
    // What somebody else gave says nothing about the time here.
    if row.mark() != 0 {
        shared.note_given(header.version);
    } else {
        shared.last_version.fetch_max(header.version, Relaxed);
    }
    if header.kind == Kind::Namespace {
        recover_namespace(segment, location, recovered)?;
    }
    segment.note(&header);
    if header.flags & flag::TOUCHES != 0 {
        recovered.touches.push((location, header));
    }
    let view = recovered_view(segment, &header, location, shared.lease_millis());
    let hash = row.hash();
    let mut view = view;
    view.set_pins(
        recovered
            .notes
            .pins_of(&row, &header, segment.salt.generation),
    );
    if view.is_unsettled() {
        recovered.pinned_in.insert(header.namespace);
    }
    let same = |other: KeyHash| {
        if row.is_unreadable() {
            other.resembles(hash)
        } else {
            other == hash
        }
    };
    let clock = shared.lease_clock();
    for known in shared.index.find(hash).iter() {
        match shared.read_header(known.location)? {
            Some((_, old)) if same(shared.hash(&Key::of(&old))) => {
                if is_newer(shared, &old, &row, location)? {
                    let inherit = |newer: &mut View| newer.inherit_lease(&view, clock);
                    shared.index.update(hash, known.location, inherit);
                } else if let Some(before) = shared.index.replace(hash, known.location, view, clock)
                {
                    shared.pins_went(&before, &old);
                    shared.pins_came(&view, &header);
                    shared
                        .segments
                        .sub_live(known.location.segment, known.size.bytes());
                    shared.segments.add_live(segment.id, view.size.bytes());
                    shared.ledger.sub(&old);
                    shared.ledger.add(&header);
                }
                return Ok(());
            }
            Some(_) => {}
            // What cannot be read was newer all the same, if its table of contents says so: nothing older comes back.
            None if version_of_row(shared, known.location)? > Some(header.version) => {
                return Ok(());
            }
            None => drop(shared.forget(hash, known.location)),
        }
    }
    shared.add(hash, view);
    shared.ledger.add(&header);
    shared.pins_came(&view, &header);
    Ok(())
}

/// Whether the record that is known is newer than that of a row, which holds no writer. Of two writings of one version the
/// one that lies further back counts.
fn is_newer(shared: &Shared, old: &Header, row: &TocRow, location: Location) -> io::Result<bool> {
    if old.version != row.version() || old.mark() == row.mark() {
        return Ok(old.version > row.version());
    }
    let read = shared.read_header(location)?;
    Ok(read.is_none_or(|(_, header)| old.stamp() > header.stamp()))
}

/// The version that a table of contents gives for the record at a place.
fn version_of_row(shared: &Shared, location: Location) -> io::Result<Option<u64>> {
    let Some(segment) = shared.segments.get(location.segment) else {
        return Ok(None);
    };
    let bytes = shared.meta.segment_bytes;
    let read = read_footer(segment.file.as_ref(), bytes, segment.salt)?;
    let rows = read.map(|(_, rows)| rows).unwrap_or_default();
    let row = rows.iter().find(|row| row.offset() == location.offset);
    Ok(row.and_then(TocRow::header).map(|header| header.version))
}

fn recovered_view(segment: &Segment, header: &Header, location: Location, now: u64) -> View {
    let mut view = View::new(location, header.record_len(), slot_kind(header.kind));
    view.keep = is_kept(header);
    view.tombstone = header.is_tombstone();
    view.size_low = (header.raw_size & slot::SIZE_LOW_MASK) as u8;
    view.unchecked = matches!(header.kind, Kind::Manifest | Kind::EntryManifest) && !view.tombstone;
    // The time of its own batch or a later one, which is safe.
    let written = segment.last_batch_millis.load(Relaxed);
    view.touch = tick_of(written);
    let kept = u64::from(LEASE_TICKS) * TICK_MILLIS;
    view.leased = header.flags & flag::LEASED != 0 && now.saturating_sub(written) < kept;
    view
}

fn recover_namespace(
    segment: &Segment,
    location: Location,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let mut bytes = vec![0; record::record_len(Namespace::MAX_LEN)];
    let read = segment.file.read_at(&mut bytes, location.offset)?;
    let record = &bytes[..read];
    let Some(header) = record::open(record, segment.salt, location.offset) else {
        return Ok(());
    };
    if !record::payload_is_sound(record, &header) {
        return Ok(());
    }
    let name = &record[header.payload_offset()..][..header.stored as usize];
    let name = std::str::from_utf8(name)
        .ok()
        .and_then(|name| Namespace::new(name).ok());
    if let Some(name) = name.filter(|_| header.part <= MAX_NAMESPACE) {
        let known = recovered.namespaces.entry(name).or_default();
        *known = (*known).max((header.version, header.part));
    }
    Ok(())
}
