//! A bundle: all that machines of one or more sites are made of, in one file that can be signed.
//!
//! ```text
//!   sites, images, kernel, this program --goods--> archive with bundle.json in front --unpack--> a Stock --> install
//! ```
//!
//! It is an [archive](crate::archive) like any other, so that tar(1) lists it, its manifest comes first and is what is signed,
//! and all of it is verified as it streams. Golden images are in it as they lie in the state directory, block by block: what was
//! built is what is cloned, with the UUIDs and digests that it had.
//!
//! | in it | what |
//! | --- | --- |
//! | `program/` | gridgate and its units, as they lie on a machine |
//! | `images/NAME/` | golden images: of hosts and of guests |
//! | `kernels/uml/` | the kernel for user-mode Linux, if the centre has one |
//! | `sites/NAME/` | the site's files |
//! | `identities/NAME/` | what was drawn for the site: private keys, only if that was asked for |

pub mod contents;
mod disk;
pub mod goods;
pub mod identities;
pub mod unpack;

const PROGRAM: &str = "program";
const IMAGES: &str = "images";
const KERNELS: &str = "kernels";
const UML: &str = "kernels/uml";
const SITES: &str = "sites";
const IDENTITIES: &str = "identities";
