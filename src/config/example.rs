//! A site to start from, in either form; both say the same.

/// How a site's files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `site.toml` and `guests/*.toml`.
    Toml,
    /// `site.conf` and `guests/*.conf`, as shell variables.
    Shell,
}

/// Paths below the site directory, and what stands in the files. The site's own file comes last, so that a directory
/// that was only half written is no site.
pub fn files(format: Format) -> &'static [(&'static str, &'static str)] {
    match format {
        Format::Toml => &[
            ("guests/ce.toml", include_str!("example/guests/ce.toml")),
            ("guests/se.toml", include_str!("example/guests/se.toml")),
            ("guests/ui.toml", include_str!("example/guests/ui.toml")),
            ("guests/wn.toml", include_str!("example/guests/wn.toml")),
            ("site.toml", include_str!("example/site.toml")),
        ],
        Format::Shell => &[
            ("guests/ce.conf", include_str!("example/guests/ce.conf")),
            ("guests/se.conf", include_str!("example/guests/se.conf")),
            ("guests/ui.conf", include_str!("example/guests/ui.conf")),
            ("guests/wn.conf", include_str!("example/guests/wn.conf")),
            ("site.conf", include_str!("example/site.conf")),
        ],
    }
}
