//! Row 6a: failed, hostile and interrupted uploads over an existing large blob leave its bytes alone. And uploads that
//! share a name: what one writer left is taken up by one other at most, and only while nothing visible is made of it.

use std::task::Poll;

use bytes::Bytes;
use zimcache_node::testing::{Fault, FaultKind, OpKind, SimRng};
use zimcache_store::{
    BlobWriter, ByteRange, CreateOptions, EntryMeta, Error, Precondition,
    testing::conformance::pattern,
};
use zimcache_types::{Code, Digest, Function};

use crate::{
    harness::Rig,
    ops::{key, team},
    volume::Row,
};

const SIZE: usize = 8_000_000;

struct Scene {
    rig: Rig,
    body: Bytes,
    digest: Digest,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let body = pattern(seed, SIZE);
        let scene = Scene {
            rig: Rig::fresh(seed),
            digest: Digest::of(Function::Sha256, &body),
            body,
        };
        assert!(matches!(
            scene.put(&scene.body, CreateOptions::default()),
            Ok(Ok(_))
        ));
        scene
    }

    fn put(&self, body: &Bytes, options: CreateOptions) -> Result<Result<u64, Code>, String> {
        let stores = self.rig.stores();
        let put = stores.put_blob(team(), &self.digest, body, 700_001, options);
        Ok(self.rig.wait(put)?.map_err(|error| error.code()))
    }

    /// Sends part of a body and goes away.
    fn interrupt(&self, body: &Bytes, sent: usize, options: CreateOptions) -> Result<(), String> {
        let blobs = self.rig.node().blobs();
        let team = team();
        self.rig.wait(async {
            let mut writer = blobs.create(team, &self.digest, options).await.unwrap();
            let held = writer.offset() as usize;
            for chunk in body[held.min(sent)..sent].chunks(900_000) {
                writer.write(body.slice_ref(chunk)).await.unwrap();
            }
        })
    }

    fn blob_is_as_it_was(&self) -> Result<(), String> {
        let stores = self.rig.stores();
        let found = self
            .rig
            .wait(stores.blob(team(), &self.digest, ByteRange::Full))?;
        match found {
            Ok(Some(bytes)) if bytes == self.body => Ok(()),
            Ok(Some(_)) => Err("WRONG BYTES".into()),
            other => Err(format!(
                "the blob is not there: {:?}",
                other.map(|found| found.is_some())
            )),
        }
    }
}

fn resumed(number: u64) -> CreateOptions {
    CreateOptions {
        resume_as: Some(format!("upload-{number}").into()),
        ..CreateOptions::default()
    }
}

fn attack(scene: &mut Scene, rng: &mut SimRng) -> Result<(), String> {
    let sent = rng.index(SIZE);
    let mut other = scene.body.to_vec();
    other[sent] ^= 1;
    let other = Bytes::from(other);
    let same = scene.body.clone();
    match rng.below(9) {
        0 => scene.interrupt(&same, sent, CreateOptions::default()),
        1 => scene.interrupt(&other, sent, resumed(1)),
        2 => scene.interrupt(&same, sent, resumed(2)),
        3 => refused(scene.put(&other, CreateOptions::default())?),
        4 => refused(scene.put(&same.slice(..sent), resumed(3))?),
        5 => accepted(scene.put(&same, CreateOptions::default())?),
        6 => accepted(scene.put(&same, resumed(4))?),
        7 => scene
            .rig
            .kill(sent as u64)
            .map_err(|error| format!("{error:?}")),
        _ => scene
            .rig
            .crash(sent as u64)
            .map_err(|error| format!("{error:?}")),
    }
}

fn refused(answer: Result<u64, Code>) -> Result<(), String> {
    let fine = answer == Err(Code::Invalid);
    fine.then_some(())
        .ok_or_else(|| format!("a wrong body was answered with {answer:?}"))
}

fn accepted(answer: Result<u64, Code>) -> Result<(), String> {
    let fine = answer == Ok(SIZE as u64);
    fine.then_some(())
        .ok_or_else(|| format!("the right body was answered with {answer:?}"))
}

#[test]
fn uploads_over_a_large_blob_leave_its_bytes_alone() {
    Row::new("row 6a", 60, 15).run(|seed| {
        let mut rng = SimRng::new(seed);
        let mut scene = Scene::new(seed);
        for _ in 0..8 {
            attack(&mut scene, &mut rng)?;
            scene.blob_is_as_it_was()?;
        }
        Ok(())
    });
}

#[test]
fn two_uploads_of_one_large_digest_at_once_both_end_well() {
    let body = pattern(5, SIZE);
    let digest = Digest::of(Function::Sha256, &body);
    let rig = Rig::fresh(1);
    let stores = rig.stores();
    let (team, plain) = (team(), CreateOptions::default());
    let put = |chunk| stores.put_blob(team, &digest, &body, chunk, plain.clone());
    let (one, other, third) = rig
        .wait(async { tokio::join!(put(100_000), put(1 << 20), put(SIZE)) })
        .unwrap();
    assert_eq!(
        [one.unwrap(), other.unwrap(), third.unwrap()],
        [SIZE as u64; 3]
    );
    let found = rig
        .wait(stores.blob(team, &digest, ByteRange::Full))
        .unwrap();
    assert!(found.unwrap() == Some(body));
    assert_eq!(rig.stats().blobs, 1);
}

/// A body that is sent to a store under one name, in pieces and by several writers.
struct Sending {
    rig: Rig,
    body: Bytes,
    digest: Digest,
}

impl Sending {
    fn new(seed: u64) -> Sending {
        let body = pattern(seed, SIZE);
        Sending {
            rig: Rig::fresh(seed),
            digest: Digest::of(Function::Sha256, &body),
            body,
        }
    }

    fn writer(&self) -> Box<dyn BlobWriter> {
        let blobs = self.rig.node().blobs();
        let created = self
            .rig
            .wait(blobs.create(team(), &self.digest, resumed(1)));
        created.unwrap().unwrap()
    }

    fn send(&self, writer: &mut Box<dyn BlobWriter>, bytes: &Bytes) {
        let sent = self.rig.wait(async {
            for chunk in bytes.chunks(300_000) {
                writer.write(bytes.slice_ref(chunk)).await?;
            }
            Ok::<_, Error>(())
        });
        sent.unwrap().unwrap();
    }

    fn commit(&self, writer: Box<dyn BlobWriter>) -> Result<u64, Code> {
        let committed = self.rig.wait(writer.commit()).unwrap();
        committed.map_err(|error| error.code())
    }

    /// Sends so much from the start and goes away; says how much is held.
    fn interrupt(&self, sent: usize) -> u64 {
        let mut writer = self.writer();
        self.send(&mut writer, &self.body.slice(..sent));
        drop(writer);
        let held = self.writer().offset();
        assert!(
            (1..=sent as u64).contains(&held),
            "{held} of {sent} bytes are held"
        );
        held
    }

    /// Goes on with the rest of the body.
    fn complete(&self) {
        let mut writer = self.writer();
        let held = writer.offset() as usize;
        self.send(&mut writer, &self.body.slice(held..));
        assert_eq!(self.commit(writer), Ok(SIZE as u64));
    }

    /// Whether the blob is there; if so, its bytes are right.
    fn is_there(&self) -> bool {
        let stores = self.rig.stores();
        let found = stores.blob(team(), &self.digest, ByteRange::Full);
        let found = self.rig.wait(found).unwrap().unwrap();
        assert!(found.as_ref().is_none_or(|found| found == &self.body));
        found.is_some()
    }
}

#[test]
fn two_writers_of_one_name_never_mix_their_parts() {
    let scene = Sending::new(3);
    let other = Bytes::from(scene.body.iter().map(|byte| !byte).collect::<Vec<_>>());
    let held = scene.interrupt(3_000_000) as usize;
    let mut first = scene.writer();
    assert_eq!(first.offset() as usize, held);
    let mut second = scene.writer();
    assert_eq!(second.offset(), 0, "what another writer has is not shared");
    scene.send(&mut second, &other.slice(..5_000_000));
    scene.send(&mut first, &scene.body.slice(held..6_000_000));
    scene.send(&mut second, &other.slice(5_000_000..));
    assert_eq!(scene.commit(second), Err(Code::Invalid));
    scene.send(&mut first, &scene.body.slice(6_000_000..));
    assert_eq!(scene.commit(first), Ok(SIZE as u64));
    assert!(scene.is_there());
}

#[test]
fn a_writer_that_ends_leaves_the_name_to_the_one_that_came_later() {
    let scene = Sending::new(4);
    let mut first = scene.writer();
    scene.send(&mut first, &scene.body.slice(..2_000_000));
    let mut second = scene.writer();
    scene.send(&mut second, &scene.body.slice(..4_000_000));
    scene.send(&mut first, &scene.body.slice(..SIZE - 2_000_000));
    assert_eq!(scene.commit(first), Err(Code::Invalid));
    drop(second);
    assert!(scene.writer().offset() > 3_000_000);
    scene.complete();
    assert!(scene.is_there());
}

#[test]
fn looking_at_what_is_held_leaves_it_there_also_when_the_store_is_opened_again() {
    let mut scene = Sending::new(5);
    let held = scene.interrupt(5_000_000);
    for _ in 0..3 {
        assert_eq!(scene.writer().offset(), held);
    }
    scene.rig.restart().unwrap();
    for _ in 0..3 {
        assert_eq!(scene.writer().offset(), held);
    }
    scene.complete();
    assert!(scene.is_there());
}

#[test]
fn a_writer_that_gives_up_while_it_takes_an_upload_up_leaves_it_to_the_next() {
    let scene = Sending::new(6);
    let held = scene.interrupt(5_000_000);
    let blobs = scene.rig.node().blobs();
    for polls in 1..6 {
        let mut create = blobs.create(team(), &scene.digest, resumed(1));
        let given_up = scene.rig.wait(async {
            for _ in 0..polls {
                let poll = std::future::poll_fn(|cx| Poll::Ready(create.as_mut().poll(cx)));
                if poll.await.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        given_up.unwrap();
        drop(create);
        assert_eq!(scene.writer().offset(), held, "after {polls} polls");
    }
}

/// The file into which a store that is new writes its entries.
fn file_of_entries(rig: &Rig) -> String {
    let stores = rig.stores();
    let (meta, rule, value) = (EntryMeta::default(), Precondition::None, Bytes::new());
    let put = stores.put_entry(key(20), &value, 1, meta, rule, None);
    rig.wait(put).unwrap().unwrap();
    let log = rig.disk.log();
    let mut writes = log.iter().rev().filter(|call| call.kind == OpKind::Write);
    writes.next().unwrap().name.to_string()
}

#[test]
fn an_upload_that_became_visible_is_not_taken_up_under_its_old_name() {
    let mut scene = Sending::new(7);
    let entries = file_of_entries(&scene.rig);
    let mut writer = scene.writer();
    scene.send(&mut writer, &scene.body);
    // The process dies before it could forget the name.
    let lost = Fault::always(OpKind::Write, FaultKind::LostWrite);
    scene.rig.disk.inject(lost.on(&entries));
    assert_eq!(scene.commit(writer), Ok(SIZE as u64));
    scene.rig.kill(7).unwrap();
    assert!(scene.is_there());
    let mut writer = scene.writer();
    assert_eq!(writer.offset(), 0, "what is visible is not written to");
    scene.send(&mut writer, &Bytes::from(vec![0; SIZE]));
    assert_eq!(scene.commit(writer), Err(Code::Invalid));
    assert!(scene.is_there());
}

#[test]
fn a_name_costs_no_write_before_there_are_parts() {
    let written = |options: &CreateOptions| {
        let mut rig = Rig::fresh(8);
        for size in [1_000, 60_000, 100_000] {
            let body = pattern(size, size as usize);
            let digest = Digest::of(Function::Sha256, &body);
            let stores = rig.stores();
            let put = stores.put_blob(team(), &digest, &body, 30_000, options.clone());
            rig.wait(put).unwrap().unwrap();
            let looked = stores.blobs.create(team(), &digest, options.clone());
            assert_eq!(rig.wait(looked).unwrap().unwrap().offset(), 0);
        }
        rig.close();
        rig.disk.counts().writes
    };
    assert_eq!(written(&resumed(1)), written(&CreateOptions::default()));
}
