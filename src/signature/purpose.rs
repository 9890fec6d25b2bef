//! What a signature is for.

/// What a signature vouches for; one that was made for anything else is not taken. Who may sign images need not be trusted with
/// whole machines, nor with what is restored as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Golden images, in archives and in stores.
    Image,
    /// Bundles, from which whole machines are made.
    Bundle,
    /// Backups of whole machines.
    Backup,
}

impl Purpose {
    /// As `ssh-keygen -Y` and files of allowed signers name it.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::Image => "gridgate-image",
            Self::Bundle => "gridgate-bundle",
            Self::Backup => "gridgate-backup",
        }
    }
}
