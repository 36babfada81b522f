//! One fault at a time on a cluster of real processes, and exactly what is promised for it. Rows 33, 34 and 37 for
//! processes; `cluster_chaos` mixes all of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use zimcache_history::{Kind, Op, Outcome};
use zimcache_tests::cluster::client::{Client, Recorder, action_result};
use zimcache_tests::cluster::wire::{Flow, Rule};
use zimcache_tests::cluster::{Cluster, Plan, S3, backing, load};
use zimcache_tests::content::{self, Random, body, sha256};
use zimcache_tests::http::{self, Connection};
use zimcache_tests::report::{say, skip};

const CONVERGENCE: Duration = Duration::from_mins(1);
/// An owner that did not hear that another one uploaded a record looks for itself after a minute.
const UPLOADED: Duration = Duration::from_secs(150);

/// A cluster with a client, and everything that the client saw.
struct Scene {
    cluster: Cluster,
    recorder: std::sync::Arc<Recorder>,
    client: Client,
    random: Random,
}

impl Scene {
    fn new(plan: &Plan) -> Result<Scene> {
        let cluster = Cluster::start(plan)?;
        let recorder = Recorder::new(plan.gateways);
        let client = Client::new(0, 0, &cluster.doors(), &recorder);
        Ok(Scene {
            cluster,
            recorder,
            client,
            random: Random::new(plan.seed),
        })
    }

    /// Writes so many blobs and as many action results, all of which have to be acknowledged.
    fn write(&mut self, count: u64) -> Result<()> {
        for number in 0..count {
            let length = self.random.blob_size_bytes();
            let (hash, outcome) = self.client.put_blob(&body(self.random.next_u64(), length));
            ensure!(outcome == Outcome::Ok, "blob {number}: {outcome:?}");
            let key = sha256(&self.random.next_u64().to_le_bytes());
            let value = action_result(number, Some((&hash, length)));
            let outcome = self.client.put_entry(&key, &value);
            ensure!(
                outcome == Outcome::Ok,
                "action result {number}: {outcome:?}"
            );
        }
        Ok(())
    }

    /// Reads everything acknowledged through every gateway; all of it has to be there.
    fn demand_all(&self, when: &str) -> Result<usize> {
        let keys = load::sweep(&self.cluster.doors(), &self.recorder)?;
        load::demand_clean(&self.recorder)
            .with_context(|| format!("{when}\n{}", self.cluster.log_tails()))?;
        Ok(keys)
    }

    /// Without any one node, and without the bucket, everything is read: it is on two disks.
    fn demand_two_copies(&self) -> Result<usize> {
        let mut keys = 0;
        for away in &self.cluster.nodes {
            for node in &self.cluster.nodes {
                self.cluster.wires.put(node.name(), S3, Rule::refused());
            }
            self.cluster.isolate(away.name(), Rule::refused());
            keys = self.demand_all(&format!("without {}", away.name()))?;
            self.cluster.wires.heal();
            self.cluster.wait_until_converged(CONVERGENCE)?;
        }
        Ok(keys)
    }

    /// Reads everything until nothing is missed: until a node has seen what the bucket holds, an entry may be.
    fn read_until_all_is_found(&self) -> Result<()> {
        let keys = load::acknowledged(&self.recorder);
        let begun = Instant::now();
        loop {
            let since = self.recorder.now();
            load::read_all(&self.cluster.doors(), &self.recorder, &keys, false)?;
            let read = load::tally(&self.recorder, since, u64::MAX);
            if read.misses + read.failed_reads == 0 {
                return Ok(());
            }
            let waits = begun.elapsed() < CONVERGENCE;
            ensure!(waits, "{read:?}\n{}", self.cluster.log_tails());
        }
    }

    fn hints(&self) -> Result<u64> {
        let standings = self.cluster.standings()?;
        Ok(standings.iter().map(|standing| standing.hints).sum())
    }
}

#[test]
fn a_killed_node_costs_no_write_and_gets_what_it_missed_when_it_is_back() -> Result<()> {
    let mut scene = Scene::new(&Plan::default())?;
    scene.write(40)?;
    scene.cluster.nodes[1].kill_9()?;
    scene.write(80)?;
    scene.demand_all("while the node is dead")?;
    let hints = scene.hints()?;
    ensure!(hints > 0, "nothing waits for the dead node");
    scene.cluster.nodes[1].start()?;
    let took = scene.cluster.wait_until_converged(CONVERGENCE)?;
    let keys = scene.demand_two_copies()?;
    say(&format!(
        "row 32: {hints} hints delivered {:.1} s after the restart, {keys} keys on two nodes",
        took.as_secs_f64()
    ));
    Ok(())
}

#[test]
fn a_wiped_disk_is_filled_again_from_the_others() -> Result<()> {
    let mut scene = Scene::new(&Plan::default())?;
    scene.write(100)?;
    let before = scene.cluster.nodes[2].status()?;
    scene.cluster.nodes[2].kill_9()?;
    scene.cluster.nodes[2].wipe()?;
    scene.cluster.nodes[2].start()?;
    // At once, while it does not have it: also this is never a miss.
    scene.demand_all("while the new disk fills")?;
    scene.cluster.nodes[2].wait_until_ready(CONVERGENCE)?;
    scene.cluster.wait_until_converged(CONVERGENCE)?;
    let after = scene.cluster.nodes[2].status()?;
    ensure!(
        after.blobs >= before.blobs && after.entries >= before.entries,
        "before {before:?}, after {after:?}"
    );
    let keys = scene.demand_two_copies()?;
    say(&format!(
        "row 32: a wiped disk filled again, {keys} keys on two nodes"
    ));
    Ok(())
}

#[test]
fn with_two_of_three_nodes_down_writes_are_refused_and_nothing_is_said_to_be_missing() -> Result<()>
{
    let mut scene = Scene::new(&Plan::default())?;
    scene.write(40)?;
    scene.cluster.nodes[0].kill_9()?;
    scene.cluster.nodes[1].kill_9()?;
    let (mut refused, mut unreadable) = (0, 0);
    for number in 0..8 {
        let (_, outcome) = scene.client.put_blob(&body(1_000 + number, 5_000));
        ensure!(outcome != Outcome::Ok, "a single copy was acknowledged");
        refused += 1;
    }
    for (_, key) in load::acknowledged(&scene.recorder).into_iter().take(30) {
        // What the last node has is read, what it lacks is neither there nor missing.
        match scene.client.get_blob(&key) {
            Outcome::Failed => unreadable += 1,
            Outcome::Absent => ensure!(false, "{key} was said to be missing"),
            _ => {}
        }
    }
    ensure!(unreadable > 0, "one node has everything");
    scene.cluster.heal()?;
    scene.cluster.wait_until_converged(CONVERGENCE)?;
    let keys = scene.demand_all("with all nodes back")?;
    say(&format!(
        "row 32: two of three down, {refused} writes refused, {unreadable} reads unprovable, {keys} keys kept"
    ));
    Ok(())
}

#[test]
fn without_the_bucket_writes_go_on_and_are_uploaded_when_it_is_back() -> Result<()> {
    if let Some(reason) = backing::unavailable() {
        return skip("32", &reason);
    }
    let mut scene = Scene::new(&Plan {
        bucket: true,
        ..Plan::default()
    })?;
    scene.write(20)?;
    scene.cluster.wait_until_uploaded(UPLOADED)?;
    scene.cluster.s3.as_mut().context("S3")?.kill()?;
    scene.write(60)?;
    let waiting: u64 = scene
        .cluster
        .standings()?
        .iter()
        .map(|node| node.dirty)
        .sum();
    ensure!(waiting > 0, "nothing waits for the bucket");
    // Also a restart forgets nothing of it.
    scene.cluster.nodes[0].kill_9()?;
    scene.cluster.heal()?;
    let took = scene.cluster.wait_until_uploaded(UPLOADED)?;
    scene.demand_all("after the outage")?;
    let since = scene.recorder.now();
    lose_every_disk(&mut scene.cluster)?;
    scene.read_until_all_is_found()?;
    scene.recorder.was_broken("every disk is lost", since);
    let keys = scene.demand_all("from the bucket alone")?;
    say(&format!(
        "row 32: {waiting} copies waited for the bucket, uploaded {:.1} s after it was back; {keys} keys read from it alone",
        took.as_secs_f64()
    ));
    Ok(())
}

/// A node remembers that a blob was deleted, which was taken for an empty blob.
#[test]
fn what_was_deleted_is_gone_and_holds_up_neither_a_new_disk_nor_a_new_node() -> Result<()> {
    let mut scene = Scene::new(&Plan::default())?;
    scene.write(60)?;
    for (number, (kind, key)) in load::acknowledged(&scene.recorder).iter().enumerate() {
        let outcome = match kind {
            // An action result is no hit when its output was deleted: so all of them go, and half of the outputs.
            Kind::Entry => scene.client.delete_entry(key),
            Kind::Blob if number % 2 == 0 => scene.client.delete_blob(key),
            Kind::Blob => continue,
        };
        ensure!(
            outcome == Outcome::Ok,
            "deleting {kind:?} {key}: {outcome:?}"
        );
    }
    scene.demand_all("after the deletions")?;
    scene.cluster.nodes[0].kill_9()?;
    scene.cluster.nodes[0].wipe()?;
    scene.cluster.nodes[0].start()?;
    scene.cluster.nodes[0].wait_until_ready(CONVERGENCE)?;
    scene.demand_all("on a new disk")?;
    let new = scene.cluster.add_node()?;
    scene.cluster.nodes[3].start()?;
    scene.cluster.zim_cluster_ring(&["ring", "join", &new])?;
    let keys = scene.demand_all("with one more node")?;
    say(&format!(
        "row 32: of {keys} keys the deleted ones stay away"
    ));
    Ok(())
}

/// All nodes start with nothing.
fn lose_every_disk(cluster: &mut Cluster) -> Result<()> {
    for node in &mut cluster.nodes {
        node.kill_9()?;
        node.wipe()?;
    }
    cluster.heal()?;
    cluster.wait_until_converged(CONVERGENCE)?;
    Ok(())
}

#[test]
fn a_gateway_killed_half_way_leaves_nothing_half_done() -> Result<()> {
    const CUTS: usize = 6;
    let mut scene = Scene::new(&Plan::default())?;
    let sizes = [200_000, 3 << 20];
    let mut cuts = 0;
    for size in sizes {
        for cut in 0..CUTS {
            let blob = body(scene.random.next_u64(), size);
            let hash = sha256(&blob);
            upload_to_be_cut(&mut scene.cluster, &hash, &blob, size * cut / CUTS)?;
            let other = scene.cluster.gateways[1].address()?;
            let found = http::once(other, "GET", &format!("/cas/{hash}"), &[], None)?;
            ensure!(found.status == 404, "{} of half an upload", found.status);
            scene.client.go_through(1);
            let (_, outcome) = scene.client.put_blob(&blob);
            ensure!(outcome == Outcome::Ok, "the repetition: {outcome:?}");
            download_to_be_cut(&mut scene.cluster, &hash, size * cut / CUTS)?;
            cuts += 2;
        }
    }
    let keys = scene.demand_all("after the kills")?;
    say(&format!(
        "row 33: a gateway killed at {cuts} places, {keys} blobs whole"
    ));
    Ok(())
}

/// Sends so much of a blob, kills the gateway, and starts it again.
fn upload_to_be_cut(cluster: &mut Cluster, hash: &str, blob: &[u8], sent: usize) -> Result<()> {
    let gateway = &mut cluster.gateways[0];
    let mut connection = Connection::open(gateway.address()?)?;
    let head = format!("PUT /cas/{hash} HTTP/1.1\r\nHost: cache.test\r\nContent-Length: ");
    connection.send_raw(format!("{head}{}\r\n\r\n", blob.len()).as_bytes())?;
    connection.send_raw(&blob[..sent])?;
    gateway.kill_9()?;
    gateway.start()
}

/// Reads so much of a blob at least, kills the gateway, and starts it again. What came is never the whole answer.
fn download_to_be_cut(cluster: &mut Cluster, hash: &str, wanted: usize) -> Result<()> {
    let address = cluster.gateways[0].address()?;
    // On their way to the gateway the bytes stop, or a short blob would be there before the kill.
    let slow = Rule::slow(wanted.max(20_000) as u64);
    let name = cluster.gateways[0].name().to_owned();
    for node in &cluster.nodes {
        cluster.wires.put(&name, node.name(), slow);
    }
    let path = format!("/cas/{hash}");
    let reader = std::thread::spawn(move || http::once(address, "GET", &path, &[], None));
    // The fault's moment, not a wait for something.
    std::thread::sleep(Duration::from_millis(300));
    cluster.gateways[0].kill_9()?;
    let answer = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    cluster.wires.heal();
    cluster.gateways[0].start()?;
    if let Ok(answer) = answer {
        ensure!(
            answer.status != 404,
            "a blob that is there was said to be missing"
        );
        let is_whole = answer.status != 200 || sha256(&answer.body) == hash;
        ensure!(is_whole, "half a blob was an answer");
    }
    Ok(())
}

#[test]
fn bits_flipped_between_nodes_and_gateway_are_never_served() -> Result<()> {
    // Nothing is kept in the gateway's memory, so that every read comes over the wire.
    let mut scene = Scene::new(&Plan {
        gateway_flags: vec!["--ram-cache".to_owned(), "0".to_owned()],
        ..Plan::default()
    })?;
    scene.write(30)?;
    let blob = body(7, 2 << 20);
    let (_, outcome) = scene.client.put_blob(&blob);
    ensure!(outcome == Outcome::Ok, "{outcome:?}");
    let name = scene.cluster.gateways[0].name().to_owned();
    let flips = Rule {
        back: Flow {
            flip_one_in: Some(20_000),
            ..Flow::default()
        },
        ..Rule::default()
    };
    for node in &scene.cluster.nodes {
        scene.cluster.wires.put(&name, node.name(), flips);
    }
    let keys = load::acknowledged(&scene.recorder);
    let begun = Instant::now();
    let since = scene.recorder.now();
    let (mut right, mut refused) = (0, 0);
    while scene.cluster.wires.flipped() < 500 && begun.elapsed() < Duration::from_secs(25) {
        let (kind, key) = &keys[scene.random.below(keys.len() as u64) as usize];
        let response = Connection::open(scene.cluster.gateways[0].address()?)?.request(
            "GET",
            &format!("/{}/{key}", if *kind == Kind::Blob { "cas" } else { "ac" }),
            &["Connection: close"],
            None,
        );
        let Ok(response) = response else {
            refused += 1;
            continue;
        };
        match (kind, response.status) {
            (Kind::Blob, 200) => {
                ensure!(
                    content::sha256(&response.body) == *key,
                    "wrong bytes of {key}"
                );
                right += 1;
            }
            (_, 200) => {
                let written = written_entry(&scene.recorder, key);
                let got = Some(content::sha256(&response.body));
                ensure!(got == written, "wrong bytes of the action result {key}");
                right += 1;
            }
            (Kind::Blob, 404) => bail!("{key} was said to be missing"),
            _ => refused += 1,
        }
    }
    let flipped = scene.cluster.wires.flipped();
    ensure!(flipped > 0 && right > 0, "{flipped} flips, {right} reads");
    scene.recorder.was_broken("bits are flipped", since);
    scene.cluster.wires.heal();
    scene.cluster.wait_until_converged(CONVERGENCE)?;
    scene.demand_all("when the wires are whole")?;
    say(&format!(
        "row 34: {flipped} bits flipped, {right} reads right, {refused} refused, 0 wrong"
    ));
    Ok(())
}

/// What was last put under the key of an action result.
fn written_entry(recorder: &Recorder, key: &str) -> Option<String> {
    let history = recorder.history();
    let mut events = history.events.iter().rev();
    let put = events.find(|event| event.op == Op::Put && event.key == key);
    put.and_then(|event| event.value.clone())
}
