//! Recorded exchanges: what a real client sent, byte for byte, and what it needs to be answered.
//!
//! The format is described in `tests/fixtures/exchanges/README.md`. Not here: recording, and starting servers.
//! Invariants: a line of expectations that is not understood is an error, so a typing mistake never passes as a check.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::http::{Connection, Response};

/// Values of placeholders, by name.
pub type Values = BTreeMap<String, String>;

/// One file.
#[derive(Debug)]
pub struct Exchange {
    /// The file's name, `NNN-<what>.http`.
    pub name: String,
    /// Whether it asks the server that has tokens.
    pub with_tokens: bool,
    status: u16,
    headers: Vec<(String, Option<String>)>,
    parts_of_headers: Vec<(String, String)>,
    absent_headers: Vec<String>,
    bodies: Vec<Body>,
    keep: Option<(String, Kept)>,
    head: String,
    body: Vec<u8>,
}

/// What is demanded of an answer's body.
#[derive(Debug)]
enum Body {
    Empty,
    SentIn(String),
    JsonSentIn(String),
    Json(Value),
    Has(String),
}

/// What of an answer's body later requests use.
#[derive(Debug)]
enum Kept {
    UrlPath,
    Number,
}

/// The exchanges of a folder, in the order of their names.
///
/// # Errors
/// When a file cannot be read or does not keep to the format.
pub fn read_folder(folder: &Path) -> Result<Vec<Exchange>> {
    let mut paths = Vec::new();
    for item in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        paths.push(item?.path());
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let parsed = std::fs::read(path).map_err(anyhow::Error::from);
        parsed
            .and_then(|bytes| parse(&name, &bytes))
            .with_context(|| path.display().to_string())
    };
    paths.iter().map(read).collect()
}

fn parse(name: &str, bytes: &[u8]) -> Result<Exchange> {
    let number = name.get(..3).unwrap_or_default();
    let parts = name.split_once('.');
    ensure!(
        number.parse::<u16>().is_ok() && parts.is_some_and(|(_, end)| end == "http"),
        "the name is not NNN-what.http"
    );
    let split = find(bytes, b"\n\n").context("no empty line after the expectations")?;
    let request = &bytes[split + 2..];
    let end = find(request, b"\r\n\r\n").context("the request's head has no end")? + 4;
    let mut exchange = Exchange {
        name: name.to_owned(),
        with_tokens: false,
        status: 0,
        headers: Vec::new(),
        parts_of_headers: Vec::new(),
        absent_headers: Vec::new(),
        bodies: Vec::new(),
        keep: None,
        head: String::from_utf8(request[..end].to_vec())?,
        body: request[end..].to_vec(),
    };
    let mut said_what = false;
    for line in std::str::from_utf8(&bytes[..split])?.lines() {
        let (key, value) = line.split_once(": ").context("a line without a value")?;
        said_what |= key == "what";
        exchange
            .expect(key, value)
            .with_context(|| line.to_owned())?;
    }
    ensure!(said_what, "it does not say what the client is doing");
    ensure!(exchange.status != 0, "no status is expected");
    Ok(exchange)
}

impl Exchange {
    fn expect(&mut self, key: &str, value: &str) -> Result<()> {
        match (key, value) {
            ("what", _) => {}
            ("status", _) => self.status = value.parse()?,
            ("server", "tokens") => self.with_tokens = true,
            ("header", _) => {
                let (name, text) = match value.split_once(": ") {
                    Some((name, text)) => (name, Some(text.to_owned())),
                    None => (value, None),
                };
                self.headers.push((name.to_ascii_lowercase(), text));
            }
            ("header-has", _) => {
                let (name, part) = value.split_once(": ").context("header-has: NAME: TEXT")?;
                let part = part.to_ascii_lowercase();
                self.parts_of_headers
                    .push((name.to_ascii_lowercase(), part));
            }
            ("no-header", _) => self.absent_headers.push(value.to_ascii_lowercase()),
            ("body", _) => self.bodies.push(body_of(value)?),
            ("keep", _) => {
                let (name, what) = value.split_once(" = ").context("keep: NAME = WHAT")?;
                let what = match what {
                    "url" => Kept::UrlPath,
                    "number" => Kept::Number,
                    _ => bail!("neither url nor number"),
                };
                self.keep = Some((name.to_owned(), what));
            }
            _ => bail!("an unknown expectation"),
        }
        Ok(())
    }

    /// The number that other files refer to it by.
    pub fn number(&self) -> &str {
        &self.name[..3]
    }

    /// The request as the file has it, placeholders included.
    pub fn recorded(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }

    /// Sends the request on a connection of its own and checks the answer; keeps what later requests need.
    ///
    /// # Errors
    /// When the answer is not the expected one.
    pub fn replay(
        &self,
        server: SocketAddr,
        folder: &[Exchange],
        values: &mut Values,
    ) -> Result<()> {
        let mut head = self.head.clone();
        for (name, value) in values.iter() {
            head = head.replace(&format!("@{name}@"), value);
        }
        let mut connection = Connection::open(server)?;
        // A server that refuses early may close before it has read all; its answer counts.
        let sent = connection.send_raw(&[head.as_bytes(), &self.body].concat());
        let response = connection.response(head.starts_with("HEAD "));
        let response = match (sent, response) {
            (Err(error), Err(_)) => return Err(error).context("sending"),
            (_, response) => response.context("reading the answer")?,
        };
        let checked = self.check(&response, folder);
        checked.with_context(|| {
            format!(
                "answered {} {:?} {:?}",
                response.status,
                response.headers,
                response.text()
            )
        })?;
        if let Some((name, what)) = &self.keep {
            values.insert(name.clone(), kept(what, &response)?);
        }
        Ok(())
    }

    fn check(&self, response: &Response, folder: &[Exchange]) -> Result<()> {
        ensure!(
            response.status == self.status,
            "status {}, not {}",
            response.status,
            self.status
        );
        for (name, value) in &self.headers {
            let found = response.header(name);
            let found = found.with_context(|| format!("no header {name}"))?;
            ensure!(
                value.as_deref().is_none_or(|value| value == found),
                "header {name} is {found:?}, not {value:?}"
            );
        }
        for (name, part) in &self.parts_of_headers {
            let found = response.header(name).unwrap_or_default();
            ensure!(
                found.to_ascii_lowercase().contains(part),
                "header {name} is {found:?}, without {part:?}"
            );
        }
        for name in &self.absent_headers {
            ensure!(response.header(name).is_none(), "there is a header {name}");
        }
        if response.status == 404 && self.bodies.is_empty() {
            let length = response.header("content-length");
            ensure!(length == Some("0"), "a miss with content-length {length:?}");
        }
        self.bodies
            .iter()
            .try_for_each(|body| check_body(body, response, folder))
    }
}

fn body_of(text: &str) -> Result<Body> {
    Ok(match text.split_once(' ') {
        None if text == "empty" => Body::Empty,
        Some(("as", number)) => Body::SentIn(number.to_owned()),
        Some(("has", text)) => Body::Has(text.to_owned()),
        Some(("json", rest)) => match rest.strip_prefix("as ") {
            Some(number) => Body::JsonSentIn(number.to_owned()),
            None => Body::Json(serde_json::from_str(rest)?),
        },
        _ => bail!("an unknown expectation of the body"),
    })
}

fn check_body(expected: &Body, response: &Response, folder: &[Exchange]) -> Result<()> {
    let sent_in = |number: &String| {
        let sent = folder.iter().find(|exchange| exchange.number() == number);
        sent.map(|exchange| &exchange.body)
            .with_context(|| format!("no file {number}"))
    };
    let is_json = |expected: &Value| -> Result<()> {
        let found: Value = serde_json::from_slice(&response.body).context("not JSON")?;
        ensure!(found == *expected, "{found}, not {expected}");
        Ok(())
    };
    match expected {
        Body::Empty => ensure!(response.body.is_empty(), "the body is not empty"),
        Body::SentIn(number) => {
            ensure!(
                response.body == *sent_in(number)?,
                "not the bytes of {number}"
            );
        }
        Body::JsonSentIn(number) => is_json(&serde_json::from_slice(sent_in(number)?)?)?,
        Body::Json(value) => is_json(value)?,
        Body::Has(text) => ensure!(response.text().contains(text), "no {text:?} in the body"),
    }
    Ok(())
}

fn kept(what: &Kept, response: &Response) -> Result<String> {
    let text = response.text();
    let (start, is_part): (_, fn(char) -> bool) = match what {
        Kept::UrlPath => {
            let after_scheme = text.find("://").context("no URL to keep")? + 3;
            let path = text[after_scheme..].find('/').context("no path to keep")?;
            let ends = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>');
            (after_scheme + path, ends)
        }
        Kept::Number => {
            let digits = text.find(|c: char| c.is_ascii_digit());
            (digits.context("no number to keep")?, |c| c.is_ascii_digit())
        }
    };
    let rest = &text[start..];
    Ok(rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())].to_owned())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            headers: vec![("content-length".to_owned(), body.len().to_string())],
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_file_is_expectations_an_empty_line_and_the_request() {
        let file = b"what: a test\nstatus: 200\nbody: has ok\n\nPUT /a HTTP/1.1\r\n\r\n\n\nbody";
        let exchange = parse("001-put.http", file).unwrap();
        assert_eq!(exchange.head, "PUT /a HTTP/1.1\r\n\r\n");
        assert_eq!(exchange.body, b"\n\nbody");
        assert!(exchange.check(&response(200, "ok"), &[]).is_ok());
        assert!(exchange.check(&response(201, "ok"), &[]).is_err());
        assert!(exchange.check(&response(200, "no"), &[]).is_err());
    }

    #[test]
    fn a_miss_has_no_body_unless_the_file_expects_one() {
        let miss = parse(
            "001-get.http",
            b"what: x\nstatus: 404\n\nGET /a HTTP/1.1\r\n\r\n",
        )
        .unwrap();
        assert!(miss.check(&response(404, ""), &[]).is_ok());
        assert!(miss.check(&response(404, "none"), &[]).is_err());
    }

    #[test]
    fn an_expectation_that_is_not_understood_is_an_error() {
        for line in [
            "stats: 200",
            "body: is nice",
            "server: other",
            "keep: a",
            "status: x",
        ] {
            let file = format!("what: x\nstatus: 200\n{line}\n\nGET / HTTP/1.1\r\n\r\n");
            assert!(parse("001-get.http", file.as_bytes()).is_err(), "{line}");
        }
        assert!(parse("001-get.http", b"status: 200\n\nGET / HTTP/1.1\r\n\r\n").is_err());
        assert!(
            parse(
                "get.http",
                b"what: x\nstatus: 200\n\nGET / HTTP/1.1\r\n\r\n"
            )
            .is_err()
        );
    }

    #[test]
    fn the_path_of_a_url_and_a_number_are_kept() {
        let answer = response(
            200,
            "\u{8}\u{1}\u{12}\u{20}http://cache.test/a/b?c=d\u{1a}x",
        );
        assert_eq!(kept(&Kept::UrlPath, &answer).unwrap(), "/a/b?c=d");
        let answer = response(200, "{\"cacheId\":42}");
        assert_eq!(kept(&Kept::Number, &answer).unwrap(), "42");
    }
}
