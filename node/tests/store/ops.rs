//! Operations on a store, the model they are compared with, and what a store may answer.
//!
//! Sixteen blobs of fixed bytes and sixteen entries of changing ones. For each the model knows the states allowed now
//! and those a recovery may bring: a refused write may or may not have reached the disk, an evicted value may come
//! back. A value once observed is the only one allowed until the next write, so nothing flickers. Eviction is no excuse
//! for four hours after a blob was said to be there under a lease, unless the store counts leases that it broke.

use std::{collections::BTreeSet, fmt, sync::LazyLock, time::Duration};

use bytes::Bytes;
use zimcache_node::testing::SimRng;
use zimcache_store::{
    ByteRange, CreateOptions, EntryMeta, Error, GcOptions, Precondition, Touch,
    testing::conformance::{Content, content},
};
use zimcache_types::{
    Clock as _, Code, Digest, EntryKey, EntryKind, Function, Namespace, Timestamp,
};

use crate::harness::Rig;

/// Blobs are the places below this, entries those from here on.
pub(crate) const BLOBS: usize = 16;
/// All places.
pub(crate) const PLACES: usize = 32;

/// Sizes at which the engine changes its ways.
pub(crate) const SIZES: [u32; 16] = [
    0, 1, 79, 80, 4095, 4096, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577, 4_194_303,
    4_194_304, 4_194_305, 300_000,
];

static BYTES: LazyLock<Bytes> = LazyLock::new(|| content(Content::Mixed, 1, 6 << 20));
static DIGESTS: LazyLock<Vec<Digest>> = LazyLock::new(|| {
    (0..BLOBS)
        .map(|place| Digest::of(Function::Sha256, &Value::of_blob(place).bytes()))
        .collect()
});

/// Bytes that can be told from all others by their number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Value {
    pub(crate) number: u32,
    pub(crate) size: u32,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}({} bytes)", self.number, self.size)
    }
}

impl Value {
    /// What the blob of this place always is.
    pub(crate) const fn of_blob(place: usize) -> Value {
        // The empty blob is always there; every place needs bytes of its own.
        let size = if place == 0 { 2 } else { SIZES[place] };
        Value {
            number: place as u32,
            size,
        }
    }

    pub(crate) fn bytes(self) -> Bytes {
        let start = self.number as usize * 16 % (1 << 20);
        BYTES.slice(start..start + self.size as usize)
    }
}

/// The room everything is in.
pub(crate) fn team() -> &'static Namespace {
    static TEAM: LazyLock<Namespace> = LazyLock::new(|| Namespace::new("team").unwrap());
    &TEAM
}

/// The digest of the blob of this place.
pub(crate) fn digest(place: usize) -> &'static Digest {
    &DIGESTS[place]
}

/// The key of the entry of this place.
pub(crate) fn key(place: usize) -> &'static EntryKey {
    static KEYS: LazyLock<Vec<EntryKey>> = LazyLock::new(|| {
        let text = |place| format!("action-{place:02}");
        let key = |place| EntryKey::new(team().clone(), EntryKind::ActionResult, text(place));
        (0..PLACES).map(|place| key(place).unwrap()).collect()
    });
    &KEYS[place]
}

/// Something to do to a store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Put(usize, Value),
    /// A put whose client goes away after so many bytes.
    Abort(usize, Value, u32),
    /// A blob put under a wrong digest.
    Hostile(usize),
    /// An upload that may be resumed; the client goes away after so many bytes.
    Interrupt(usize, u32),
    /// The upload taken up again and finished.
    Resume(usize),
    Get(usize),
    Range(usize, u32, u32),
    Delete(usize),
    Touch(u32, Touch),
    List(usize),
    Collect,
    Verify,
    /// Lets so many minutes pass.
    Later(u64),
    Restart,
    Kill,
    Crash,
}

/// What operations are drawn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    /// Of a thousand writes so many are larger than 100 kB.
    pub(crate) large_permille: u16,
    /// Whether the store may be ended and opened again.
    pub(crate) recover: bool,
}

/// So many operations.
pub(crate) fn sequence(rng: &mut SimRng, count: usize, mix: Mix) -> Vec<Op> {
    (0..count)
        .map(|number| draw(rng, number as u32, mix))
        .collect()
}

fn draw(rng: &mut SimRng, number: u32, mix: Mix) -> Op {
    let large = rng.permille(mix.large_permille);
    let fitting = |rng: &mut SimRng| loop {
        let place = rng.index(BLOBS);
        if (Value::of_blob(place).size > 100_000) == large {
            return place;
        }
    };
    let entry = BLOBS + rng.index(PLACES - BLOBS);
    let size = loop {
        let size = *rng.pick(&SIZES);
        if (size > 100_000) == large {
            break size;
        }
    };
    let value = Value {
        number: 1000 + number,
        size,
    };
    let any = rng.index(PLACES);
    match rng.below(100) {
        0..18 => {
            let place = fitting(rng);
            Op::Put(place, Value::of_blob(place))
        }
        18..38 => Op::Put(entry, value),
        38..41 => {
            let place = fitting(rng);
            Op::Abort(
                place,
                Value::of_blob(place),
                rng.below(1 + u64::from(value.size)) as u32,
            )
        }
        41..43 => Op::Abort(entry, value, rng.below(1 + u64::from(size)) as u32),
        43..45 => Op::Hostile(fitting(rng)),
        45..48 => Op::Interrupt(fitting(rng), rng.below(5 << 20) as u32),
        48..51 => Op::Resume(fitting(rng)),
        51..70 => Op::Get(any),
        70..78 => Op::Range(any, rng.below(5 << 20) as u32, rng.below(1 << 20) as u32),
        78..86 => Op::Delete(any),
        86..90 => Op::Touch(
            rng.next_u64() as u32,
            *rng.pick(&[Touch::No, Touch::Use, Touch::Lease]),
        ),
        90..92 => Op::List(rng.index(20)),
        92 => Op::Collect,
        93 => Op::Verify,
        94..96 => Op::Later(rng.below(300)),
        _ if !mix.recover => Op::Get(any),
        96 => Op::Restart,
        97 => Op::Kill,
        _ => Op::Crash,
    }
}

/// What is known about one place.
#[derive(Debug, Clone, Default)]
struct Place {
    /// What a look-up may find now.
    now: BTreeSet<Option<Value>>,
    /// What it may find besides after a recovery.
    later: BTreeSet<Option<Value>>,
    /// Everything that was ever written here.
    ever: BTreeSet<Value>,
    /// Until when it was promised to stay.
    promised_until: Option<Timestamp>,
}

/// What a store may answer.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    places: Vec<Place>,
    /// Values gone because the store said that it evicted some.
    vanished: u64,
    /// Records that had been evicted when the store was last opened.
    evicted_at_opening: u64,
    /// Whether the disk is so broken that values may be lost, or older ones found; wrong bytes still never.
    pub(crate) lossy: bool,
    /// Values found lost while [`Model::lossy`].
    pub(crate) lost: u64,
    /// Whether writes may be refused as unavailable: the disk fails syncs. Reads must go on.
    pub(crate) refusals_are_fine: bool,
}

impl Default for Model {
    fn default() -> Self {
        let empty = Place {
            now: BTreeSet::from([None]),
            ..Place::default()
        };
        Model {
            places: vec![empty; PLACES],
            vanished: 0,
            evicted_at_opening: 0,
            lossy: false,
            lost: 0,
            refusals_are_fine: false,
        }
    }
}

/// For how long a lease is a promise.
const PROMISE: Duration = Duration::from_hours(4);

impl Place {
    /// Whether eviction is no excuse.
    fn is_promised(&self, rig: &Rig) -> bool {
        let in_time = self.promised_until.is_some_and(|end| rig.clock.now() < end);
        in_time && rig.leases_broken() == 0
    }
}

/// Whether the blob of this place is always put under a lease; of entries none is.
const fn is_put_under_a_lease(place: usize) -> bool {
    place < BLOBS && place % 3 == 1
}

type Outcome = Result<(), String>;

impl Model {
    /// Does an operation and checks the answer.
    pub(crate) fn apply(&mut self, rig: &mut Rig, op: Op) -> Outcome {
        let outcome = self.apply_unnamed(rig, op);
        outcome.map_err(|why| format!("{op:?}: {why}"))
    }

    fn apply_unnamed(&mut self, rig: &mut Rig, op: Op) -> Outcome {
        match op {
            Op::Put(place, value) => self.put(rig, place, value),
            Op::Abort(place, value, sent) => self.abort(rig, place, value, sent),
            Op::Hostile(place) => self.hostile(rig, place),
            Op::Interrupt(place, sent) => self.interrupt(rig, place, sent),
            Op::Resume(place) => self.resume(rig, place),
            Op::Get(place) => self.get(rig, place),
            Op::Range(place, first, len) => {
                self.range(rig, place, u64::from(first), u64::from(len))
            }
            Op::Delete(place) => self.delete(rig, place),
            Op::Touch(places, touch) => self.touch(rig, places, touch),
            Op::List(after) => self.list(rig, after),
            Op::Collect => {
                let admin = rig.node().admin();
                self.settle(rig, rig.wait(admin.gc(GcOptions::default()))?.map(drop))
            }
            Op::Verify => {
                let admin = rig.node().admin();
                let report = rig.wait(admin.verify(Box::new(|_| {})))?;
                if report.as_ref().is_ok_and(|report| report.damaged > 0)
                    && !self.lossy
                    && !rig.disk.is_off()
                {
                    return Err(format!("a good disk is called damaged: {report:?}"));
                }
                self.settle(rig, report.map(drop))
            }
            Op::Later(minutes) => {
                rig.clock.advance(Duration::from_secs(60 * minutes));
                Ok(())
            }
            Op::Restart => self.recover(rig, Rig::restart),
            Op::Kill => self.recover(rig, |rig| rig.kill(1)),
            Op::Crash => {
                let seed = rig.disk.counts().operations;
                self.recover(rig, |rig| rig.crash(seed))
            }
        }
    }

    /// Ends the store somehow, opens it again and lets the model know.
    pub(crate) fn recover(
        &mut self,
        rig: &mut Rig,
        reopen: impl FnOnce(&mut Rig) -> Result<(), zimcache_node::OpenError>,
    ) -> Outcome {
        reopen(rig).map_err(|error| format!("the store does not open: {error:?}"))?;
        self.recovered(rig);
        Ok(())
    }

    /// The store was opened again.
    pub(crate) fn recovered(&mut self, rig: &Rig) {
        self.evicted_at_opening = rig.evicted_records();
        for place in &mut self.places {
            place.now.append(&mut place.later);
        }
    }

    /// The same, of a disk that loses data.
    pub(crate) fn lossy(self) -> Model {
        Model {
            lossy: true,
            ..self
        }
    }

    /// What is known to be at every place.
    pub(crate) fn states(&self) -> Vec<Option<Value>> {
        self.places
            .iter()
            .map(|place| place.now.first().copied().flatten())
            .collect()
    }

    /// Looks at every place; afterwards each has one state. Returns what is there.
    pub(crate) fn observe(&mut self, rig: &Rig) -> Result<Vec<Option<Value>>, String> {
        let mut seen = Vec::new();
        for place in 0..PLACES {
            self.get(rig, place)
                .map_err(|why| format!("place {place}: {why}"))?;
            seen.push(self.places[place].now.first().copied().flatten());
        }
        self.list(rig, 0)?;
        Ok(seen)
    }

    /// A refusal is fine when the disk is off or full.
    fn settle(&self, rig: &Rig, outcome: Result<(), Error>) -> Outcome {
        match outcome {
            Ok(()) => Ok(()),
            Err(_) if rig.disk.is_off() || self.lossy => Ok(()),
            Err(error) if error.code() == Code::OutOfSpace => Ok(()),
            Err(error) if error.code() == Code::Unavailable && self.refusals_are_fine => Ok(()),
            Err(error) => Err(format!(
                "{error:?}; the disk's last calls:\n{}",
                rig.disk_log()
            )),
        }
    }

    fn put(&mut self, rig: &Rig, place: usize, value: Value) -> Outcome {
        let mut outcome = put_value(rig, place, value)?;
        // A full store may evict a blob just while it is being sent again, and then says so.
        for _ in 0..3 {
            if matches!(outcome, Err(Error::Retry(_))) {
                outcome = put_value(rig, place, value)?;
            }
        }
        self.wrote(rig, place, Some(value), outcome.map(drop))
    }

    /// Notes the answer to a write after which the place should hold `value`.
    fn wrote(
        &mut self,
        rig: &Rig,
        place: usize,
        value: Option<Value>,
        outcome: Result<(), Error>,
    ) -> Outcome {
        let known = &mut self.places[place];
        known.ever.extend(value);
        if outcome.is_ok() {
            let leased = value.is_some() && is_put_under_a_lease(place);
            known.promised_until = match value {
                Some(_) if leased => Some(rig.clock.now().plus(PROMISE)),
                Some(_) => known.promised_until,
                None => None,
            };
            known.now = BTreeSet::from([value]);
            known.later.clear();
        } else {
            known.later.insert(value);
        }
        self.settle(rig, outcome)
    }

    fn abort(&mut self, rig: &Rig, place: usize, value: Value, sent: u32) -> Outcome {
        let stores = rig.stores();
        let part = value.bytes().slice(..sent.min(value.size) as usize);
        let outcome = rig.wait(async {
            if place < BLOBS {
                let options = CreateOptions::default();
                stores
                    .blobs
                    .create(team(), digest(place), options)
                    .await?
                    .write(part)
                    .await
            } else {
                let meta = EntryMeta::default();
                let writer = stores
                    .entries
                    .put(key(place), meta, Precondition::None, None);
                writer.await?.write(part).await
            }
        })?;
        self.settle(rig, outcome)
    }

    fn hostile(&mut self, rig: &Rig, place: usize) -> Outcome {
        let stores = rig.stores();
        let mut body = Value::of_blob(place).bytes().to_vec();
        body[0] ^= 1;
        let body = Bytes::from(body);
        let put = stores.put_blob(
            team(),
            digest(place),
            &body,
            1 << 20,
            CreateOptions::default(),
        );
        match rig.wait(put)? {
            Ok(_) => Err("wrong bytes were accepted".into()),
            Err(error) if error.code() == Code::Invalid => Ok(()),
            Err(error) => self.settle(rig, Err(error)),
        }
    }

    fn upload_name(place: usize) -> CreateOptions {
        CreateOptions {
            resume_as: Some(format!("upload-{place}").into()),
            lease: is_put_under_a_lease(place),
            ..CreateOptions::default()
        }
    }

    fn interrupt(&mut self, rig: &Rig, place: usize, sent: u32) -> Outcome {
        let stores = rig.stores();
        let body = Value::of_blob(place).bytes();
        let outcome = rig.wait(async {
            let mut writer = stores
                .blobs
                .create(team(), digest(place), Self::upload_name(place))
                .await?;
            let held = writer.offset() as usize;
            let end = body.len().min(held + sent as usize);
            for chunk in body[held..end].chunks(250_000) {
                writer.write(body.slice_ref(chunk)).await?;
            }
            Ok(())
        })?;
        self.settle(rig, outcome)
    }

    fn resume(&mut self, rig: &Rig, place: usize) -> Outcome {
        let stores = rig.stores();
        let value = Value::of_blob(place);
        let body = value.bytes();
        let name = Self::upload_name(place);
        let send = || stores.put_blob(team(), digest(place), &body, 300_000, name.clone());
        let mut put = rig.wait(send())?;
        for _ in 0..3 {
            if matches!(put, Err(Error::Retry(_))) {
                put = rig.wait(send())?;
            }
        }
        self.wrote(rig, place, Some(value), put.map(drop))
    }

    fn get(&mut self, rig: &Rig, place: usize) -> Outcome {
        let stores = rig.stores();
        let found = rig.wait(async {
            if place < BLOBS {
                stores.blob(team(), digest(place), ByteRange::Full).await
            } else {
                stores.value(key(place), ByteRange::Full).await
            }
        })?;
        match found {
            Ok(found) => self.saw(rig, place, found.as_deref()),
            Err(error) => self.read_failed(rig, place, error),
        }
    }

    fn read_failed(&mut self, rig: &Rig, place: usize, error: Error) -> Outcome {
        if self.lossy && error.code() == Code::Corrupt {
            self.lost += 1;
            self.places[place].now = BTreeSet::from([None]);
            return Ok(());
        }
        if rig.disk.is_off() {
            return Ok(());
        }
        Err(format!(
            "a read failed: {error:?}; the disk's last calls:\n{}",
            rig.disk_log()
        ))
    }

    /// Checks what a look-up found, and remembers it.
    fn saw(&mut self, rig: &Rig, place: usize, found: Option<&[u8]>) -> Outcome {
        let known = &mut self.places[place];
        let seen = match found {
            None => None,
            Some(bytes) => {
                let is = |value: &&Value| value.bytes() == bytes;
                let allowed = known
                    .now
                    .iter()
                    .flatten()
                    .find(is)
                    .or_else(|| known.ever.iter().rev().find(is));
                match allowed {
                    Some(value) => Some(*value),
                    None => {
                        return Err(format!(
                            "WRONG BYTES: {} of them, never written here",
                            bytes.len()
                        ));
                    }
                }
            }
        };
        if !known.now.contains(&seen) {
            match seen {
                Some(_) if self.lossy => {}
                None if self.lossy => self.lost += 1,
                None if known.is_promised(rig) => {
                    return Err(format!(
                        "a blob that was promised is gone; {} leases were broken; the disk's last calls:\n{}",
                        rig.leases_broken(),
                        rig.disk_log()
                    ));
                }
                None if self.vanished < rig.evicted_records() => {
                    self.vanished += 1;
                    known.later = known.now.clone();
                }
                _ => {
                    return Err(format!(
                        "found {seen:?}, allowed is {:?}; {} gone before, {} records evicted, {} corrupt; the disk's last calls:\n{}",
                        known.now,
                        self.vanished,
                        rig.evicted_records(),
                        rig.stats().corrupt_records,
                        rig.disk_log()
                    ));
                }
            }
        }
        if seen.is_none() && self.evicted_at_opening < rig.evicted_records() {
            // What came back when the store was opened may have been evicted again, and may come back again.
            let others = known.now.iter().filter(|value| value.is_some());
            known.later.extend(others.copied());
        }
        known.now = BTreeSet::from([seen]);
        Ok(())
    }

    fn range(&mut self, rig: &Rig, place: usize, first: u64, len: u64) -> Outcome {
        let stores = rig.stores();
        let range = ByteRange::From {
            first,
            last: Some(first + len),
        };
        let found = rig.wait(async {
            if place < BLOBS {
                stores.blob(team(), digest(place), range).await
            } else {
                stores.value(key(place), range).await
            }
        })?;
        let slice = |value: &Value| {
            let (size, first) = (u64::from(value.size), first as usize);
            (first < size as usize).then(|| {
                value
                    .bytes()
                    .slice(first..size.min(first as u64 + len + 1) as usize)
            })
        };
        let known = &self.places[place];
        match found {
            Ok(Some(bytes)) => {
                let fits = |value: &Value| slice(value).is_some_and(|expected| expected == bytes);
                let fine = known.now.iter().flatten().any(fits)
                    || (self.lossy && known.ever.iter().any(fits));
                fine.then_some(())
                    .ok_or_else(|| format!("WRONG BYTES in a range of {:?}", known.now))
            }
            Ok(None) => self.saw(rig, place, None),
            Err(error) if error.code() == Code::RangeInvalid => {
                let fine = known
                    .now
                    .iter()
                    .flatten()
                    .any(|value| slice(value).is_none())
                    || self.lossy;
                fine.then_some(())
                    .ok_or_else(|| format!("range refused of {:?}", known.now))
            }
            Err(error) => self.read_failed(rig, place, error),
        }
    }

    fn delete(&mut self, rig: &Rig, place: usize) -> Outcome {
        let stores = rig.stores();
        let outcome = rig.wait(async {
            if place < BLOBS {
                stores.blobs.delete(team(), digest(place)).await
            } else {
                stores.entries.delete(key(place)).await
            }
        })?;
        match outcome {
            Ok(true) if self.places[place].now.iter().all(Option::is_none) && !self.lossy => {
                Err("deleted what was not there".into())
            }
            Ok(true) => self.wrote(rig, place, None, Ok(())),
            Ok(false) => self.saw(rig, place, None),
            Err(error) => self.wrote(rig, place, None, Err(error)),
        }
    }

    fn touch(&mut self, rig: &Rig, places: u32, touch: Touch) -> Outcome {
        let wanted: Vec<usize> = (0..BLOBS)
            .filter(|place| places & 1 << place != 0)
            .collect();
        let digests: Vec<Digest> = wanted.iter().map(|place| *digest(*place)).collect();
        let blobs = rig.node().blobs();
        let answer = match rig.wait(blobs.missing(team(), &digests, touch))? {
            Ok(answer) => answer,
            Err(error) => return self.settle(rig, Err(error)),
        };
        for (place, missing) in wanted.into_iter().zip(answer) {
            if missing {
                self.saw(rig, place, None)?;
            } else if touch == Touch::Lease {
                self.places[place].promised_until = Some(rig.clock.now().plus(PROMISE));
            }
            if !missing && self.places[place].now.iter().all(Option::is_none) && !self.lossy {
                return Err(format!("the blob of place {place} is said to be there"));
            }
        }
        Ok(())
    }

    fn list(&mut self, rig: &Rig, after: usize) -> Outcome {
        let entries = rig.node().entries();
        let after = (after > 0).then(|| format!("action-{:02}", BLOBS + after - 1));
        let after = after.as_deref();
        let rows = entries.list(team(), EntryKind::ActionResult, "action-", after, PLACES);
        let rows = match rig.wait(rows)? {
            Ok(rows) => rows,
            Err(error) => return self.settle(rig, Err(error)),
        };
        for place in BLOBS..PLACES {
            let key = key(place);
            if after.is_some_and(|after| &*key.text <= after) {
                continue;
            }
            let row = rows.iter().find(|row| row.text == key.text);
            let fits =
                |value: &Value| row.is_some_and(|row| row.size_bytes == u64::from(value.size));
            let known = &self.places[place];
            match row {
                None => self.saw(rig, place, None)?,
                Some(_) if known.now.iter().flatten().any(fits) || self.lossy => {}
                Some(row) => return Err(format!("{row:?} is listed, allowed is {:?}", known.now)),
            }
        }
        let sorted = rows.is_sorted_by(|a, b| a.text < b.text);
        sorted
            .then_some(())
            .ok_or_else(|| "the listing is not in order".into())
    }
}

/// Puts a value in chunks of a size of its own.
fn put_value(rig: &Rig, place: usize, value: Value) -> Result<Result<u64, Error>, String> {
    let stores = rig.stores();
    let body = value.bytes();
    let chunk = 1 + (value.number as usize * 7919) % 400_000;
    rig.wait(async {
        if place < BLOBS {
            let options = CreateOptions {
                lease: is_put_under_a_lease(place),
                ..CreateOptions::default()
            };
            let digest = digest(place);
            stores.put_blob(team(), digest, &body, chunk, options).await
        } else {
            let (meta, rule) = (EntryMeta::default(), Precondition::None);
            stores
                .put_entry(key(place), &body, chunk, meta, rule, None)
                .await
        }
    })
}
