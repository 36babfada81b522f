//! `zim cache get`: fetches an object by its SHA-256, and believes nothing.
//!
//! Invariants: the target file is replaced only by content with the right digest; what was received before a broken
//! connection stays in a file beside the target and is asked for no more; a wrong digest leaves nothing behind.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use http::{StatusCode, header};
use zimcache_config::Environment;
use zimcache_types::{Function, Hash, Hasher};

use crate::{
    args::GetArgs,
    error::{Error, Result},
    progress, put,
    remote::{Download, Server},
    settings::Settings,
};

/// Runs it.
pub(crate) fn run(args: &GetArgs) -> Result<ExitCode> {
    let hash = parse_hash(&args.hash)?;
    let settings = Settings::load(Environment::of_process())?;
    let server = Server::at(&settings.endpoint(&args.server)?)?;
    match args.output.as_deref() {
        Some(path) if path != Path::new("-") => to_file(&server, &hash, path)?,
        None if io::stdout().is_terminal() => return Err(Error::BinaryOnTerminal),
        _ => to_stdout(&server, &hash)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of an object.
pub(crate) fn parse_hash(text: &str) -> Result<Hash> {
    let hash = Hash::parse(Function::Sha256, &text.to_ascii_lowercase());
    hash.map_err(|_| Error::NoHash(text.to_owned()))
}

fn to_stdout(server: &Server, hash: &Hash) -> Result<()> {
    let mut download = server.download(&put::object_path(server, hash), 0)?;
    let mut out = io::stdout().lock();
    let received = receive(&mut download, Hasher::new(Function::Sha256), 0, &mut out)?;
    out.flush().map_err(Error::Output)?;
    check(hash, &received)
}

fn to_file(server: &Server, hash: &Hash, target: &Path) -> Result<()> {
    let partial = partial_path(target, hash);
    let failed = |source| Error::WriteFile {
        path: partial.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&partial).map_err(failed)?;
    let received = fetch(server, hash, &mut file).and_then(|received| {
        file.sync_all().map_err(failed)?;
        Ok(received)
    })?;
    if let Err(error) = check(hash, &received) {
        fs::remove_file(&partial).map_err(failed)?;
        return Err(error);
    }
    fs::rename(&partial, target).map_err(|source| Error::WriteFile {
        path: target.to_owned(),
        source,
    })
}

/// Beside the target, named by what is in it, so that nothing else is ever continued.
fn partial_path(target: &Path, hash: &Hash) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", hash.to_hex()));
    target.with_file_name(name)
}

/// Completes the file, and returns the hash of all of it.
fn fetch(server: &Server, hash: &Hash, file: &mut File) -> Result<Hash> {
    let path = put::object_path(server, hash);
    let mut hasher = Hasher::new(Function::Sha256);
    let mut have = 0;
    io::copy(file, &mut Feed(&mut hasher, &mut have)).map_err(Error::Input)?;
    let mut download = server.download(&path, have)?;
    if have > 0 && !continues(&download, have) {
        // The whole object is sent, or the partial file is longer than that.
        if download.status == StatusCode::RANGE_NOT_SATISFIABLE {
            download = server.download(&path, 0)?;
        }
        hasher = Hasher::new(Function::Sha256);
        have = 0;
        file.set_len(0).map_err(Error::Output)?;
        file.seek(SeekFrom::Start(0)).map_err(Error::Output)?;
    }
    receive(&mut download, hasher, have, file)
}

/// Whether the answer goes on at the offset.
fn continues(download: &Download<'_>, offset: u64) -> bool {
    let range = download.headers.get(header::CONTENT_RANGE);
    let range = range.and_then(|value| value.to_str().ok());
    let begin = format!("bytes {offset}-");
    download.status == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&begin))
}

/// Writes and hashes what arrives.
fn receive(
    download: &mut Download<'_>,
    mut hasher: Hasher,
    have: u64,
    out: &mut impl Write,
) -> Result<Hash> {
    let bar = progress::bar(have + download.length().unwrap_or(0));
    bar.set_position(have);
    let finished = loop {
        match download.next() {
            Ok(Some(chunk)) => {
                hasher.update(&chunk);
                out.write_all(&chunk).map_err(Error::Output)?;
                bar.inc(chunk.len() as u64);
            }
            Ok(None) => break Ok(hasher.finish()),
            Err(error) => break Err(error),
        }
    };
    bar.finish_and_clear();
    finished
}

fn check(wanted: &Hash, received: &Hash) -> Result<()> {
    if wanted == received {
        return Ok(());
    }
    Err(Error::WrongContent {
        wanted: wanted.to_hex(),
        received: received.to_hex(),
    })
}

/// Hashes and counts what is written to it.
struct Feed<'a>(&'a mut Hasher, &'a mut u64);

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        *self.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_lies_beside_its_target_and_names_its_content() {
        let hash = parse_hash(&"AB".repeat(32)).unwrap();
        let partial = partial_path(Path::new("/out/lib.a"), &hash);
        let name = format!("/out/lib.a.{}.part", "ab".repeat(32));
        assert_eq!(partial, PathBuf::from(name));
    }

    #[test]
    fn what_is_no_sha_256_is_refused() {
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(63)] {
            assert!(parse_hash(bad).is_err(), "{bad}");
        }
    }
}
