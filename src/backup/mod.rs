//! A whole gateway as it is at one moment, in a store, and on another machine again.
//!
//! ```text
//!   guests, held still for a moment       take::take        files in STATE/.backup.making-...
//!   STATE, the site's directory    ------------------->     (disks share their blocks with the guests')
//!                                                                 | send::send: what is new alone
//!                                                                 v
//!                                          STORE/backups/SITE/latest: all of it counts at once
//!                                                                 | restore::prepare
//!                                                                 v
//!                    STATE/.restore/ready: all of it, checked    restore::finish: by renames    STATE, site
//! ```
//!
//! What a machine draws for a site goes with it: keys, ids, addresses. So there are never to be two of them: a restored
//! machine takes the place of one that is gone, or stands by with its guests stopped.

pub mod commit;
pub mod list;
pub mod manifest;
pub mod restore;

pub mod send;
mod small;
pub mod standby;

pub mod take;
