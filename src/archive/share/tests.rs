//! Which thread hears what, and which error is told.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::archive::buffers::{Shelf, Slice};
use crate::archive::entry::Kind;
use crate::archive::manifest::tests::{entry, file, head};
use crate::archive::stream::Part;

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than what is handed over at once.
const LONG: usize = 300 << 10;

/// Files with that content, after the top.
fn manifest(files: &[Vec<u8>]) -> Manifest {
    let top = [entry(b"", Kind::Directory)];
    let files =
        files.iter().enumerate().map(|(number, content)| file(format!("{number:04}").as_bytes(), content));
    Manifest::new(head(), top.into_iter().chain(files).collect()).unwrap()
}

/// A file of the manifest in pieces of that length, and its end.
fn pieces(number: usize, content: &[u8], len: usize) -> Vec<Told> {
    let part = Part::Entry(number + 1);
    let mut buffer = Shelf::new(1).take(content.len());
    buffer.copy_from_slice(content);
    let buffer = std::sync::Arc::new(buffer);
    let mut told = Vec::new();
    for from in (0..content.len()).step_by(len) {
        let bytes = Slice::of(&buffer, from..(from + len).min(content.len()));
        told.push(Told::Data { part, offset: from as u64, bytes });
        told.push(Told::Pause);
    }
    told.push(Told::End { part });
    told
}

fn number(piece: &Piece<'_>) -> usize {
    match piece {
        Piece::Data { part: Part::Entry(number), .. }
        | Piece::End { part: Part::Entry(number) }
        | Piece::Lost { part: Part::Entry(number), .. } => number - 1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_file_is_heard_by_one_of_them_whole_and_in_order() {
    let files: Vec<Vec<u8>> =
        (0..200).map(|n| vec![n as u8; if n % 7 == 0 { LONG + n } else { n }]).collect();
    let manifest = manifest(&files);
    let heard = Mutex::new(Vec::new());
    let sink = || {
        let (mut content, heard) = (Vec::new(), &heard);
        move |piece: Piece<'_>| {
            match piece {
                Piece::Data { offset, bytes, .. } => {
                    assert_eq!(offset, content.len() as u64);
                    content.extend_from_slice(bytes);
                }
                _ => heard.lock().unwrap().push((number(&piece), std::mem::take(&mut content))),
            }
            Ok(())
        }
    };
    let mut sinks = [sink(), sink(), sink()];
    share(&manifest, false, &mut sinks, |hear| {
        let mut told =
            files.iter().enumerate().flat_map(|(number, content)| pieces(number, content, 100 << 10));
        told.try_for_each(hear)
    })
    .unwrap();
    let mut heard = heard.into_inner().unwrap();
    heard.sort();
    assert!(heard == files.into_iter().enumerate().collect::<Vec<_>>());
}

#[test]
fn of_several_errors_that_of_the_file_that_comes_first_is_told() {
    let files = [vec![1; LONG], vec![2; LONG]];
    let manifest = manifest(&files);
    let (say, later_has_come) = channel();
    let later_has_come = Mutex::new(later_has_come);
    let (say, wait): (_, &Mutex<Receiver<()>>) = (&say, &later_has_come);
    let sink = || {
        move |piece: Piece<'_>| {
            match number(&piece) {
                0 => wait.lock().unwrap().recv_timeout(LIMIT).expect("the other file is heard meanwhile"),
                _ => say.send(()).unwrap(),
            }
            bail!("file {} cannot be written", number(&piece))
        }
    };
    let mut sinks = [sink(), sink()];
    let error = share(&manifest, false, &mut sinks, |hear| {
        let mut told = files.iter().enumerate().flat_map(|(number, content)| pieces(number, content, LONG));
        told.try_for_each(hear)
    })
    .unwrap_err();
    assert_eq!(format!("{error:#}"), "reading the archive: file 0 cannot be written");
}

#[test]
fn an_error_of_one_of_them_ends_the_telling() {
    let manifest = manifest(&[Vec::new()]);
    let sink = |_: Piece<'_>| bail!("no room is left");
    let error = share(&manifest, false, &mut [sink, sink], |hear| {
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            hear(Told::End { part: Part::Entry(1) })?;
        }
        panic!("it was told on and on");
    })
    .unwrap_err();
    assert_eq!(format!("{error:#}"), "reading the archive: no room is left");
}

#[test]
fn what_is_wrong_with_what_was_told_is_told_before_why_no_more_came() {
    let manifest = manifest(&[b"hello".to_vec()]);
    let error = share(&manifest, false, &mut [|_: Piece<'_>| Ok(())], |hear| {
        pieces(0, b"hallo", 5).into_iter().try_for_each(&mut *hear)?;
        bail!("the line has gone")
    })
    .unwrap_err();
    let wanted = "reading the archive: '0000': its content is not what its digest says";
    assert_eq!(format!("{error:#}"), wanted);
}
