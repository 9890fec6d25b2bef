//! What web servers answer to a request for several parts of a file (RFC 9110, section 14.6).

use std::io::{BufRead, Read};
use std::ops::Range;

use anyhow::{Context, Result, bail};

use super::Sink;
use crate::progress::interrupted;

/// Lines of headers, and all of them together.
const LONGEST_HEADERS: u64 = 64 << 10;
const AT_ONCE: usize = 64 << 10;

/// The headers of an answer or of a part of one: lower-case names, values without surrounding blanks. The first line of an
/// answer is not told apart.
pub fn headers(body: &mut dyn BufRead) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut left = LONGEST_HEADERS;
    loop {
        let mut line = Vec::new();
        let n = body.take(left).read_until(b'\n', &mut line).context("reading an answer")? as u64;
        if n == 0 || !line.ends_with(b"\n") {
            bail!("the answer ends in its headers, or they have no end");
        }
        left -= n;
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

/// The value of a header.
pub fn value<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    let matching = |line: &'a String| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    };
    headers.iter().find_map(matching)
}

/// `bytes 0-499/1234` as a range.
pub fn content_range(value: &str) -> Option<Range<u64>> {
    let (range, _) = value.strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then(|| first..last.saturating_add(1))
}

/// The boundary in `multipart/byteranges; boundary=...`; `None` if it is another type.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/byteranges") {
        return None;
    }
    let parameter = rest.split(';').find_map(|one| {
        let (name, value) = one.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (!parameter.is_empty() && parameter.len() <= 70).then_some(parameter)
}

/// Hands on bytes from that place of the file, as many as there are, but none at or behind `end`. Whether the end was reached.
pub fn pass(body: &mut dyn BufRead, mut at: u64, end: u64, sink: &mut Sink<'_>) -> Result<bool> {
    let mut buffer = vec![0; AT_ONCE];
    while at < end {
        if interrupted() {
            bail!("interrupted");
        }
        let len = (end - at).min(AT_ONCE as u64) as usize;
        let n = match body.read(&mut buffer[..len]) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.context("reading an answer")?,
        };
        if n == 0 {
            return Ok(false);
        }
        sink(at, &buffer[..n])?;
        at += n as u64;
    }
    Ok(true)
}

/// Hands on every part of the body. Parts that nobody asked for are refused.
pub fn parts(
    body: &mut dyn BufRead,
    boundary: &str,
    wanted: &[Range<u64>],
    sink: &mut Sink<'_>,
) -> Result<()> {
    let (open, close) = (format!("--{boundary}"), format!("--{boundary}--"));
    let whole = wanted.first().map_or(0, |r| r.start)..wanted.last().map_or(0, |r| r.end);
    for _ in 0..=wanted.len() {
        // Blank lines come before a boundary; nothing else of ours does.
        let line = loop {
            let mut line = Vec::new();
            let n = body.take(200).read_until(b'\n', &mut line).context("reading an answer")?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if n == 0 || !line.is_empty() {
                break line;
            }
        };
        if line == close {
            return Ok(());
        }
        if line != open {
            bail!("the answer is cut off between two parts");
        }
        let headers = headers(body)?;
        let range = value(&headers, "content-range").and_then(content_range);
        let range = range.context("a part of the answer does not say where it belongs")?;
        if range.start < whole.start || range.end > whole.end {
            bail!("a part of the answer was not asked for");
        }
        if !pass(body, range.start, range.end, sink)? {
            bail!("the answer is cut off within a part");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_come_with_their_places() {
        let body = b"\r\n--B\r\nContent-Type: x\r\nContent-Range: bytes 2-4/99\r\n\r\nabc\r\n--B\r\ncontent-range: bytes 9-9/*\r\n\r\nz\r\n--B--\r\n";
        let mut got = Vec::new();
        parts(&mut &body[..], "B", &[2..5, 9..10], &mut |at, bytes| {
            got.push((at, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(got, [(2, b"abc".to_vec()), (9, b"z".to_vec())]);
        for cut in 0..body.len() - 8 {
            assert!(parts(&mut &body[..cut], "B", &[2..5, 9..10], &mut |_, _| Ok(())).is_err(), "{cut}");
        }
        let error = parts(&mut &body[..], "B", std::slice::from_ref(&(2..5)), &mut |_, _| Ok(()))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "a part of the answer was not asked for");
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let mut input =
            &b"HTTP/1.1 206 x\r\nContent-Type: multipart/byteranges; boundary=\"q\"\r\n\r\nrest"[..];
        let found = headers(&mut input).unwrap();
        assert_eq!(value(&found, "content-type").and_then(boundary).as_deref(), Some("q"));
        assert_eq!(input, b"rest");
        assert_eq!(content_range("bytes 5-3/9"), None);
        assert_eq!(content_range("bytes 0-18446744073709551615/9"), Some(0..u64::MAX));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(text in "(--B|--B--|\r\n|Content-Range: bytes [0-9]-[0-9]/9|[a-z]){0,20}") {
            let _ = parts(&mut text.as_bytes(), "B", std::slice::from_ref(&(0..5)), &mut |_, _| Ok(()));
            let _ = headers(&mut text.as_bytes());
            let _ = boundary(&text);
            let _ = content_range(&text);
        }
    }
}
