//! A free **port** on 127.0.0.1, for programs that cannot tell which one they got.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

use anyhow::{Result, bail};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up), one of which could
/// otherwise take the port between the question and the program's start.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port on which nothing listens, given once per process.
pub fn free() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = RANGE.end - RANGE.start;
    // Test binaries that run at once begin at different places.
    let begin = u16::try_from(std::process::id() * 97 % u32::from(count))?;
    for step in 0..count {
        let port = RANGE.start + (begin + step) % count;
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no port is free between {} and {}", RANGE.start, RANGE.end)
}
