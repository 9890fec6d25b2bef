//! A site directory's text becomes a [`site::Site`]; reads files, changes nothing.

pub mod site;
pub mod shell;
