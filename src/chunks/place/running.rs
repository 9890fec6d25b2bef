//! A program that carries bytes from or to a store, and ends with its use.

use std::io::Read;
use std::process::Child;

use anyhow::{Context, Result};

/// Killed when it is dropped.
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Waits for its end: its exit status, -1 if a signal ended it, and what it said.
    pub(super) fn end(&mut self) -> Result<(i32, String)> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        if let Some(stderr) = self.0.stderr.take() {
            // What it says is for people; half of it is better than none.
            let _ = stderr.take(4096).read_to_string(&mut said);
        }
        let status = self.0.wait().context("waiting for the program that carries bytes")?;
        Ok((status.code().unwrap_or(-1), said.trim().to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
