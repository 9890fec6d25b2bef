//! How memory of this process is laid out.

use rustix::mm::{Advice, madvise};

/// What the kernel's large pages are long on most machines. Elsewhere advice that is given for as much is taken or not.
pub const LARGE_PAGE: usize = 2 << 20;

/// Asks for large pages where the kernel makes them only for those who ask (`transparent_hugepage/enabled`): for memory that begins
/// at one and that nobody has touched yet. Making a large page takes a fraction of the time that the small ones in its place take.
#[expect(unsafe_code, reason = "advice about memory is given by address")]
pub fn prefer_large_pages(memory: &mut [u8]) {
    let len = memory.len() / LARGE_PAGE * LARGE_PAGE;
    let start = memory.as_mut_ptr();
    if len == 0 || !start.addr().is_multiple_of(LARGE_PAGE) {
        return;
    }
    // SAFETY: the range lies in memory that is borrowed for this call, and the advice changes nothing of what is in it.
    let _ = unsafe { madvise(start.cast(), len, Advice::LinuxHugepage) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_stays_whatever_pages_it_is_in() {
        let mut memory = vec![7; 3 * LARGE_PAGE];
        let start = memory.as_ptr().align_offset(LARGE_PAGE);
        for from in [start, start + 1, 0] {
            prefer_large_pages(&mut memory[from..]);
        }
        prefer_large_pages(&mut []);
        assert!(memory.iter().all(|byte| *byte == 7));
    }
}
