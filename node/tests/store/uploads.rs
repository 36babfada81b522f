//! Row 6a: failed, hostile and interrupted uploads over an existing large blob leave its bytes alone.

use bytes::Bytes;
use zimcache_node::testing::SimRng;
use zimcache_store::{ByteRange, CreateOptions, testing::conformance::pattern};
use zimcache_types::{Code, Digest, Function};

use crate::{harness::Rig, ops::team, volume::Row};

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
