//! `zim cache put`: stores files as objects, each named by its SHA-256.
//!
//! A file is read twice: for its name, then to send it; the server checks that both readings agree. What cannot be read
//! twice (standard input) goes through a temporary file. What the server has already is not sent again.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    path::Path,
    process::ExitCode,
};

use http::{Method, StatusCode};
use zimcache_config::Environment;
use zimcache_types::{Function, Hash, Hasher};

use crate::{
    args::PutArgs,
    error::{Error, Result},
    output, progress,
    remote::{Outgoing, Server},
    settings::Settings,
};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Runs it.
pub(crate) fn run(args: &PutArgs) -> Result<ExitCode> {
    let settings = Settings::load(Environment::of_process())?;
    let server = Server::at(&settings.endpoint(&args.server)?)?;
    let several = args.files.len() > 1;
    for path in &args.files {
        let failed = |source| Error::ReadFile {
            path: path.clone(),
            source,
        };
        let mut file = open(path).map_err(failed)?;
        let (hash, size) = hash(&mut file).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        send(&server, &hash, file, size)?;
        let hex = hash.to_hex();
        let name = if several {
            format!("  {}", path.display())
        } else {
            String::new()
        };
        output::print(&format!("{hex}{name}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where an object is.
pub(crate) fn object_path(server: &Server, hash: &Hash) -> String {
    server.in_room(&format!("/api/v1/objects/{}", hash.to_hex()))
}

fn open(path: &Path) -> io::Result<File> {
    if path != Path::new("-") {
        return File::open(path);
    }
    let mut spool = tempfile::tempfile()?;
    io::copy(&mut io::stdin().lock(), &mut spool)?;
    spool.seek(SeekFrom::Start(0))?;
    Ok(spool)
}

/// Name and size of what is left in the reader.
pub(crate) fn hash(reader: &mut impl Read) -> io::Result<(Hash, u64)> {
    let mut hasher = Hasher::new(Function::Sha256);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut size_bytes = 0;
    loop {
        let got = reader.read(&mut chunk)?;
        if got == 0 {
            return Ok((hasher.finish(), size_bytes));
        }
        hasher.update(&chunk[..got]);
        size_bytes += got as u64;
    }
}

fn send(server: &Server, hash: &Hash, file: File, size_bytes: u64) -> Result<()> {
    let path = object_path(server, hash);
    let head = server.request(Method::HEAD, &path, Outgoing::bytes(Vec::new()))?;
    let answer = server.exchange(head)?;
    match answer.status {
        StatusCode::OK => return Ok(()),
        StatusCode::NOT_FOUND => {}
        // HEAD has no words; the refusal of the upload does.
        _ => return server.put(&path, Outgoing::bytes(Vec::new())),
    }
    let progress = progress::bar(size_bytes);
    let body = Outgoing::File {
        file,
        left: size_bytes,
        progress: progress.clone(),
    };
    let sent = server.put(&path, body);
    progress.finish_and_clear();
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_named_by_its_content() {
        let (hash, size) = hash(&mut &b"abc"[..]).unwrap();
        assert_eq!(size, 3);
        assert!(hash.to_hex().starts_with("ba7816bf8f01cfea"));
    }
}
