//! Memory that only the beginning needed is given back.
//!
//! The holder is a small loop inside a large program: relocation, arguments and requests touch megabytes of code and tables
//! that it then never looks at again. They come from the program's file, and come back from there if they are needed.

use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::mm::{Advice, madvise};

use super::Holder;

/// After the last thing that was out of the ordinary.
const QUIET: Duration = Duration::from_secs(2);

impl Holder {
    /// Something was done that is not done often.
    pub(super) fn has_worked(&mut self) {
        self.slim_due = Some(Instant::now() + QUIET);
    }

    /// Gives back what is not needed any more, when it is time to.
    pub(super) fn slim(&mut self, now: Instant) {
        if self.slim_due.is_some_and(|due| due <= now) {
            self.slim_due = None;
            // The kernel takes clean pages anyway when it needs them; this is only earlier.
            for range in clean_mappings(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
                forget(range);
            }
        }
    }
}

/// Code and constants of the program: what is mapped from its file and was never written to. Tables that were relocated are
/// mapped read-only too, but not from the file's beginning.
fn clean_mappings(maps: &str) -> Vec<Range<usize>> {
    let own = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let mut found = Vec::new();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [addresses, access, offset, .., path] = fields[..] else { continue };
        let clean = access == "r-xp" || (access == "r--p" && offset.bytes().all(|b| b == b'0'));
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        let range = addresses.split_once('-').and_then(|(from, to)| Some(number(from)?..number(to)?));
        if let Some(range) = range.filter(|_| clean && own.as_os_str() == path) {
            found.push(range);
        }
    }
    found
}

#[expect(unsafe_code, reason = "madvise(2) has no safe form")]
fn forget(range: Range<usize>) {
    let start = std::ptr::without_provenance_mut(range.start);
    // SAFETY: a private mapping of the program's own file that cannot be written to and never was: its pages hold what the
    // file holds, and the kernel reads them from there again when they are next touched.
    let _ = unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn code_and_constants_are_clean_and_what_was_relocated_is_not() {
        let own = std::fs::read_link("/proc/self/exe").unwrap();
        let own = own.display();
        let maps = format!(
            "1000-3000 r--p 00000000 fe:00 12 {own}\n3000-5000 r-xp 00002000 fe:00 12 {own}\n\
             5000-6000 r--p 00004000 fe:00 12 {own}\n6000-7000 rw-p 00005000 fe:00 12 {own}\n\
             8000-9000 r-xp 00000000 fe:00 13 /lib/libc.so.6\n9000-a000 rw-p 00000000 00:00 0\n"
        );
        assert_eq!(clean_mappings(&maps), [0x1000..0x3000, 0x3000..0x5000]);
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_ignored(text in "\\PC{0,100}") {
            let _ = clean_mappings(&text);
        }
    }
}
