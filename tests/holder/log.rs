//! What a guest said, as its log has it.

use gridgate::console::logread::{self, BootReader};
use gridgate::paths::Paths;

use crate::support::guest;

pub(crate) fn log_of(paths: &Paths, name: &str, boot: i64) -> Vec<u8> {
    let dir = paths.console(&guest(name));
    let mut bytes = Vec::new();
    let number = logread::resolve(&dir, boot).unwrap();
    std::io::Read::read_to_end(&mut BootReader::new(&dir, number), &mut bytes).unwrap();
    bytes
}

pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// What `i=0; while [ $i -lt N ]; do echo "line $i"` says.
pub(crate) fn numbered(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| format!("line {i}\n").into_bytes()).collect()
}

pub(crate) fn numbers(count: usize) -> String {
    format!("i=0; while [ $i -lt {count} ]; do echo \"line $i\"; i=$((i+1)); done")
}
