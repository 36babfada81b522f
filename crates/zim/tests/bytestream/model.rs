//! Any interleaving of writers, readers, cuts, resumes and kills says what a map from blobs to bytes would say.
//!
//! The model knows which blobs are stored, and how much of each upload can be held at most. What may happen either way
//! (a stream that was taken over, or had ended before that) is allowed either way, and nothing else is.

use std::collections::{HashMap, HashSet};

use proptest::{prelude::*, test_runner::Config};
use rustix::process::Signal;
use tonic::Code;

use crate::support::{
    Host, OpenWrite, Outcome, held, message, messages, pattern, place, read, send, travelling,
    upload,
};

/// Sizes of the blobs: what cannot be resumed, and what can.
const SIZES: [usize; 3] = [1000, 1_500_000, 3 << 20];
/// Uploads that may be open at once.
const SLOTS: usize = 3;
const UUIDS: [&str; 2] = ["one", "two"];

/// Which upload: blob, uuid, and whether it travels as zstd.
type Upload = (usize, usize, bool);

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Asks how much is held, and goes on there.
    Open(usize, Upload),
    /// Begins at the start, whatever is held.
    Begin(usize, Upload),
    Send(usize, usize),
    Cut(usize),
    /// Says no more, without an end.
    Close(usize),
    Finish(usize),
    Read(usize),
    Ask(Upload),
    Restart,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let upload = || (0..SIZES.len(), 0..UUIDS.len(), any::<bool>());
    let step = prop_oneof![
        4 => (0..SLOTS, upload()).prop_map(|(slot, upload)| Step::Open(slot, upload)),
        2 => (0..SLOTS, upload()).prop_map(|(slot, upload)| Step::Begin(slot, upload)),
        9 => (0..SLOTS, 1..1_200_000_usize).prop_map(|(slot, size)| Step::Send(slot, size)),
        2 => (0..SLOTS).prop_map(Step::Cut),
        2 => (0..SLOTS).prop_map(Step::Close),
        3 => (0..SLOTS).prop_map(Step::Finish),
        2 => (0..SIZES.len()).prop_map(Step::Read),
        2 => upload().prop_map(Step::Ask),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..30)
}

/// An open write.
struct Running {
    stream: OpenWrite,
    upload: Upload,
    /// What travels, from the first offset on.
    data: Vec<u8>,
    first: usize,
    sent: usize,
    /// A newer stream of its name was begun.
    superseded: bool,
}

struct Model {
    host: Host,
    blobs: Vec<Vec<u8>>,
    stored: HashSet<usize>,
    /// Where in the blob the longest stream of an upload ended.
    reached: HashMap<(usize, usize), usize>,
    running: [Option<Running>; SLOTS],
}

impl Model {
    fn new() -> Model {
        let numbered = (700..).zip(SIZES);
        Model {
            host: Host::start(),
            blobs: numbered.map(|(seed, size)| pattern(seed, size)).collect(),
            stored: HashSet::new(),
            reached: HashMap::new(),
            running: [const { None }; SLOTS],
        }
    }

    fn name(&self, (blob, uuid, is_packed): Upload) -> String {
        upload(UUIDS[uuid], is_packed, &self.blobs[blob])
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Open(slot, upload) => {
                let from = self.ask(upload).await;
                self.open(slot, upload, from).await;
            }
            Step::Begin(slot, upload) => self.open(slot, upload, 0).await,
            Step::Send(slot, size) => self.send(slot, size).await,
            Step::Cut(slot) => {
                if let Some(running) = self.running[slot].take() {
                    running.stream.cut().await;
                }
            }
            Step::Close(slot) => {
                if let Some(running) = self.running[slot].take() {
                    let (upload, superseded) = (running.upload, running.superseded);
                    let outcome = running.stream.close().await;
                    self.judge_end(upload, superseded, outcome);
                }
            }
            Step::Finish(slot) => self.finish(slot).await,
            Step::Read(blob) => self.read(blob).await,
            Step::Ask(upload) => drop(self.ask(upload).await),
            Step::Restart => self.restart(Signal::TERM).await,
            Step::Kill => self.restart(Signal::KILL).await,
        }
    }

    /// Asks how much of an upload is held.
    async fn ask(&mut self, upload: Upload) -> usize {
        let name = self.name(upload);
        let known = held(&mut self.host.client(), &name).await;
        let (blob, uuid, _) = upload;
        let size = usize::try_from(known.committed_size).unwrap();
        // A stream that nobody saw end may have stored it.
        assert_eq!(known.complete, self.stored.contains(&blob), "{upload:?}");
        if known.complete {
            assert_eq!(size, SIZES[blob]);
        } else {
            let reached = self.reached.get(&(blob, uuid)).copied().unwrap_or(0);
            assert!(size <= reached, "{upload:?}: {size} of {reached}");
        }
        size
    }

    async fn open(&mut self, slot: usize, upload: Upload, first: usize) {
        if let Some(before) = self.running[slot].take() {
            before.stream.cut().await;
        }
        let (blob, uuid, is_packed) = upload;
        for other in self.running.iter_mut().flatten() {
            other.superseded |= (other.upload.0, other.upload.1) == (blob, uuid);
        }
        let data = travelling(&self.blobs[blob][first..], is_packed);
        // On a connection of its own: what is not read must not hold up the others.
        let stream = OpenWrite::begin(&self.host.client());
        stream
            .send(message(&self.name(upload), first, &[], false))
            .await;
        self.running[slot] = Some(Running {
            stream,
            upload,
            data,
            first,
            sent: 0,
            superseded: false,
        });
    }

    async fn send(&mut self, slot: usize, size: usize) {
        let Some(mut running) = self.running[slot].take() else {
            return;
        };
        let end = running.data.len().min(running.sent + size);
        let part = &running.data[running.sent..end];
        let offset = running.first + running.sent;
        let taken = running.stream.send(message("", offset, part, false)).await;
        running.sent = end;
        self.note(&running);
        if taken {
            self.running[slot] = Some(running);
        } else {
            let outcome = running.stream.close().await;
            self.judge_end(running.upload, running.superseded, outcome);
        }
    }

    /// Notes how far an upload may have come.
    fn note(&mut self, running: &Running) {
        let (blob, uuid, is_packed) = running.upload;
        let end = if is_packed {
            SIZES[blob]
        } else {
            running.first + running.sent
        };
        let reached = self.reached.entry((blob, uuid)).or_default();
        *reached = end.max(*reached);
    }

    async fn finish(&mut self, slot: usize) {
        let Some(mut running) = self.running[slot].take() else {
            return;
        };
        let offset = running.first + running.sent;
        let last = message("", offset, &running.data[running.sent..], true);
        running.sent = running.data.len();
        self.note(&running);
        running.stream.send(last).await;
        let (blob, _, is_packed) = running.upload;
        let all = running.first + running.data.len();
        match running.stream.close().await {
            Ok(-1) => assert!(is_packed && self.stored.contains(&blob)),
            Ok(size) => {
                let expected = if is_packed { all } else { SIZES[blob] };
                assert_eq!(size, i64::try_from(expected).unwrap());
                self.stored.insert(blob);
            }
            Err(status) => {
                assert!(
                    running.superseded && status.code() == Code::Aborted,
                    "{status}"
                );
            }
        }
    }

    /// The answer to a write that was not finished.
    fn judge_end(&self, (blob, uuid, is_packed): Upload, superseded: bool, outcome: Outcome<i64>) {
        let stored = self.stored.contains(&blob);
        match outcome {
            Ok(-1) => assert!(is_packed && stored),
            Ok(size) => {
                let reached = self.reached.get(&(blob, uuid)).copied().unwrap_or(0);
                let most = if stored { SIZES[blob] } else { reached };
                assert!(usize::try_from(size).unwrap() <= most, "{size} of {most}");
            }
            Err(status) => assert!(superseded && status.code() == Code::Aborted, "{status}"),
        }
    }

    async fn read(&self, blob: usize) {
        let name = format!("blobs/{}", place(&self.blobs[blob]));
        match read(&mut self.host.client(), name).await {
            Ok(data) => assert!(self.stored.contains(&blob) && data == self.blobs[blob]),
            Err(status) => {
                assert!(!self.stored.contains(&blob) && status.code() == Code::NotFound);
            }
        }
    }

    /// Whatever is open is lost, what was stored is not.
    async fn restart(&mut self, signal: Signal) {
        if signal == Signal::TERM {
            for running in self.running.iter_mut().filter_map(Option::take) {
                running.stream.cut().await;
            }
        }
        self.host.restart(signal);
        for running in self.running.iter_mut().filter_map(Option::take) {
            running.stream.cut().await;
        }
    }

    /// In the end every upload can be completed, whatever happened to it.
    async fn complete_all(&mut self) {
        for running in self.running.iter_mut().filter_map(Option::take) {
            running.stream.cut().await;
        }
        for blob in 0..SIZES.len() {
            let upload = (blob, blob % 2, blob % 2 == 1);
            let from = self.ask(upload).await;
            let data = travelling(&self.blobs[blob][from..], upload.2);
            let all = messages(&self.name(upload), from, &data);
            send(&mut self.host.client(), all).await.unwrap();
            self.stored.insert(blob);
            self.read(blob).await;
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, max_shrink_iters: 200, ..Config::default() })]

    #[test]
    fn any_interleaving_says_what_a_map_says(steps in steps()) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut model = Model::new();
            for step in steps {
                model.take(step).await;
            }
            model.complete_all().await;
        });
    }
}
