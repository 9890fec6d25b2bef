//! For tests that kill a console holder.

/// Whether a new holder can take over what a killed one held; said loudly where it cannot.
#[allow(dead_code, reason = "not every test binary kills a holder")]
pub fn is_possible() -> bool {
    match gridgate::console::record::can_take_over() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: {error:#}");
            false
        }
    }
}
