//! The request that a WebSocket begins with (RFC 6455 section 4.2), and its answer.
//!
//! Owns what a request must be; knows no frame. Its head is bounded before it is parsed.

use std::sync::Arc;

use base64ct::{Base64, Encoding};
use sha1::{Digest, Sha1};

use super::Fault;
use crate::{
    base::limits::{HTTP_FIELDS_MAX, HTTP_HEAD_BYTES_MAX},
    config::WebSocketRules,
};

/// A request that is awaited.
#[derive(Debug)]
pub(super) struct Upgrade {
    rules: Arc<WebSocketRules>,
    head: Vec<u8>,
}

impl Upgrade {
    pub(super) fn new(rules: Arc<WebSocketRules>) -> Self {
        Self { rules, head: Vec::new() }
    }

    /// Takes received bytes. Once the request is whole, appends the answer to `out` and returns how many of the
    /// bytes belonged to it.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Fault> {
        let before = self.head.len();
        let room = HTTP_HEAD_BYTES_MAX - before;
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // The end may have begun in what was there before.
        let from = before.saturating_sub(HEAD_END.len() - 1);
        let end = self.head[from..].windows(HEAD_END.len()).position(|four| four == HEAD_END);
        let outcome = match end {
            _ if !looks_like_http(&self.head) => Err(BAD_REQUEST),
            Some(at) => {
                let head_bytes = from + at + HEAD_END.len();
                let answer = answer(&self.head[..head_bytes], &self.rules);
                answer.map(|answer| (head_bytes - before, answer))
            }
            None if self.head.len() < HTTP_HEAD_BYTES_MAX => return Ok(None),
            None => Err(TOO_LARGE),
        };
        match outcome {
            Ok((used, answer)) => {
                out.extend_from_slice(answer.as_bytes());
                Ok(Some(used))
            }
            Err(status) => {
                let more = if status == UPGRADE_REQUIRED { UPGRADE_HEADERS } else { "" };
                let refusal = format!(
                    "HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n"
                );
                out.extend_from_slice(refusal.as_bytes());
                Err(Fault::Http(status))
            }
        }
    }
}

/// Whether it can be the start of a GET, or of what is refused in HTTP's words.
fn looks_like_http(head: &[u8]) -> bool {
    head.iter().take(METHOD_BYTES).all(|byte| byte.is_ascii_uppercase() || *byte == b' ')
}

/// The answer to a request, or the status that refuses it.
fn answer(head: &[u8], rules: &WebSocketRules) -> Result<String, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Ok(httparse::Status::Partial) | Err(_) => return Err(BAD_REQUEST),
    }
    if request.method != Some("GET") {
        return Err(METHOD_NOT_ALLOWED);
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if !rules.paths.iter().any(|known| &**known == path) {
        return Err(NOT_FOUND);
    }
    let values = |name: &'static str| {
        let fields = request.headers.iter();
        fields
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .filter_map(|field| std::str::from_utf8(field.value).ok())
    };
    let lists = |name: &'static str, element: &'static str| {
        values(name)
            .flat_map(|list| list.split(','))
            .any(|one| one.trim().eq_ignore_ascii_case(element))
    };
    // Exactly one: what two proxies read differently is a way in.
    let only = |name: &'static str| {
        let mut found = values(name);
        found.next().filter(|_| found.next().is_none())
    };
    if only("Host").is_none() || request.version != Some(1) {
        return Err(BAD_REQUEST);
    }
    if !lists("Upgrade", "websocket")
        || !lists("Connection", "upgrade")
        || only("Sec-WebSocket-Version") != Some("13")
    {
        return Err(UPGRADE_REQUIRED);
    }
    let key = only("Sec-WebSocket-Key").ok_or(BAD_REQUEST)?;
    let mut decoded = [0; KEY_BYTES + 2];
    if Base64::decode(key, &mut decoded).map_or(0, <[u8]>::len) != KEY_BYTES {
        return Err(BAD_REQUEST);
    }
    if let Some(origin) = values("Origin").find(|origin| !rules.admits(origin)) {
        tracing::debug!(origin, "WebSocket of an Origin that is not allowed");
        return Err(FORBIDDEN);
    }
    if !values("Sec-WebSocket-Protocol")
        .flat_map(|list| list.split(','))
        .any(|one| one.trim() == "mqtt")
    {
        return Err(BAD_REQUEST);
    }
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    let accept = Base64::encode_string(&digest);
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\n{UPGRADE_HEADERS}Connection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    ))
}

const HEAD_END: &[u8] = b"\r\n\r\n";
/// Of the longest method there is, with a blank.
const METHOD_BYTES: usize = 4;
/// Bytes of a Sec-WebSocket-Key.
const KEY_BYTES: usize = 16;
/// What the server puts behind the key (section 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const UPGRADE_HEADERS: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

const BAD_REQUEST: &str = "400 Bad Request";
const FORBIDDEN: &str = "403 Forbidden";
const NOT_FOUND: &str = "404 Not Found";
const METHOD_NOT_ALLOWED: &str = "405 Method Not Allowed";
const UPGRADE_REQUIRED: &str = "426 Upgrade Required";
const TOO_LARGE: &str = "431 Request Header Fields Too Large";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebSocketRules;

    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqttv3.1, mqtt\r\nOrigin: https://a.example\r\n\r\n";

    fn outcome(request: &str, chunk: usize) -> (String, Option<usize>) {
        let rules =
            WebSocketRules { origins: vec!["https://a.example".into()], ..Default::default() };
        let mut upgrade = Upgrade::new(Arc::new(rules));
        let mut out = Vec::new();
        let mut used = 0;
        for bytes in request.as_bytes().chunks(chunk) {
            match upgrade.receive(bytes, &mut out) {
                Ok(None) => used += bytes.len(),
                Ok(Some(last)) => return (String::from_utf8(out).unwrap(), Some(used + last)),
                Err(_) => return (String::from_utf8(out).unwrap(), None),
            }
        }
        (String::from_utf8(out).unwrap(), Some(used))
    }

    /// The key and its answer are those of RFC 6455 section 1.3. Clause: MQTT-6.0.0-4.
    #[test]
    fn a_request_is_answered_however_it_is_cut() {
        for chunk in 1..=GOOD.len() {
            let (answer, used) = outcome(&format!("{GOOD}\u{2}"), chunk);
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
            assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
            assert_eq!(used, Some(GOOD.len()), "by {chunk}");
        }
    }

    #[test]
    fn other_requests_are_refused_with_a_status_that_says_why() {
        for (from, to, status) in [
            ("/mqtt", "/?token=1", "101"),
            ("Origin: https://a.example\r\n", "", "101"),
            ("/mqtt", "/chat", "404"),
            ("GET", "POST", "405"),
            ("HTTP/1.1", "HTTP/1.0", "400"),
            ("Host: a\r\n", "", "400"),
            ("Host: a\r\n", "Host: a\r\nHost: b\r\n", "400"),
            ("Upgrade: WebSocket\r\n", "", "426"),
            ("keep-alive, Upgrade", "keep-alive", "426"),
            ("Version: 13", "Version: 8", "426"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", "400"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "not base64", "400"),
            ("mqttv3.1, mqtt", "mqttv3.1", "400"),
            ("https://a.example", "https://b.example", "403"),
            ("Host", "Ho\0st", "400"),
            ("GET /mqtt HTTP/1.1\r\n", "\u{16}\u{3}\u{1}", "400"),
        ] {
            let (answer, _) = outcome(&GOOD.replacen(from, to, 1), 7);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {answer}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_bound() {
        let endless = format!("GET /{}", "a".repeat(2 * HTTP_HEAD_BYTES_MAX));
        for chunk in [1, 1000, endless.len()] {
            assert!(outcome(&endless, chunk).0.starts_with("HTTP/1.1 431 "), "by {chunk}");
        }
        let fields = "A: b\r\n".repeat(HTTP_FIELDS_MAX + 1);
        let many = GOOD.replacen("Host", &format!("{fields}Host"), 1);
        assert!(outcome(&many, 100).0.starts_with("HTTP/1.1 431 "));
    }
}
