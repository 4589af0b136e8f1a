//! What a file of the simulated disk holds: pages that are shared by those who have the same, and none
//! where all is zero.

use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct Content {
    bytes: usize,
    /// Zero behind the end.
    pages: BTreeMap<usize, Arc<Page>>,
}

type Page = [u8; PAGE];

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

impl Content {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn pages_count(&self) -> usize {
        self.pages.len()
    }

    /// Those that are not zero and end behind `byte`.
    pub(crate) fn pages_from(&self, byte: usize) -> impl Iterator<Item = usize> {
        self.pages.range(byte / PAGE..).map(|(page, _)| *page)
    }

    pub(crate) fn read(&self, from: usize, bytes_max: usize) -> Vec<u8> {
        let from = from.min(self.bytes);
        let mut found = vec![0; bytes_max.min(self.bytes - from)];
        for (page, start, part) in parts(from, found.len()) {
            if let Some(bytes) = self.pages.get(&page) {
                let length = part.len();
                found[part].copy_from_slice(&bytes[start..start + length]);
            }
        }
        found
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes = self.bytes.max(at + bytes.len());
        for (page, start, part) in parts(at, bytes.len()) {
            let part = &bytes[part];
            if self.pages.contains_key(&page) || part.iter().any(|byte| *byte != 0) {
                self.page(page)[start..start + part.len()].copy_from_slice(part);
            }
        }
    }

    pub(crate) fn resize(&mut self, bytes: usize) {
        self.pages.split_off(&bytes.div_ceil(PAGE));
        if bytes < self.bytes
            && let Some(last) = self.pages.get_mut(&(bytes / PAGE))
        {
            Arc::make_mut(last)[bytes % PAGE..].fill(0);
        }
        self.bytes = bytes;
    }

    /// Makes a page as it is in `other`, as far as both reach.
    pub(crate) fn take_page(&mut self, other: &Self, page: usize) {
        let length = self.bytes.min(other.bytes).saturating_sub(page * PAGE).min(PAGE);
        let is_same = length == PAGE || self.bytes == other.bytes;
        match other.pages.get(&page) {
            _ if length == 0 => {}
            Some(theirs) if is_same => drop(self.pages.insert(page, Arc::clone(theirs))),
            Some(theirs) => self.page(page)[..length].copy_from_slice(&theirs[..length]),
            None if is_same => drop(self.pages.remove(&page)),
            None => self.page(page)[..length].fill(0),
        }
    }

    fn page(&mut self, page: usize) -> &mut Page {
        Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE])))
    }
}

/// The parts of `bytes` bytes at `at`: the page of each, where it begins there, and which part it is.
fn parts(at: usize, bytes: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let end = at + bytes;
    (at / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let (from, to) = ((page * PAGE).max(at), ((page + 1) * PAGE).min(end));
        (page, from % PAGE, from - at..to - at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// As an array of bytes does, whatever is done.
    #[test]
    fn content_is_what_was_written() {
        let mut random = Random::new(1, 1);
        let (mut contents, mut plain) = (Content::default(), Vec::new());
        let (mut others, mut plain_others) = (Content::default(), Vec::<u8>::new());
        for _ in 0..20_000 {
            let at = random.below(5 * PAGE as u64) as usize;
            match random.below(4) {
                0 => {
                    contents.resize(at);
                    plain.resize(at, 0);
                }
                1 => {
                    std::mem::swap(&mut contents, &mut others);
                    std::mem::swap(&mut plain, &mut plain_others);
                }
                2 => {
                    let page = at / PAGE;
                    contents.take_page(&others, page);
                    let end = ((page + 1) * PAGE).min(plain.len()).min(plain_others.len());
                    if page * PAGE < end {
                        plain[page * PAGE..end].copy_from_slice(&plain_others[page * PAGE..end]);
                    }
                }
                _ => {
                    let length = random.below(2 * PAGE as u64) as usize;
                    let bytes = vec![random.below(3) as u8; length];
                    contents.write(at, &bytes);
                    plain.resize(plain.len().max(at + length), 0);
                    plain[at..at + length].copy_from_slice(&bytes);
                }
            }
            assert!(contents.read(0, usize::MAX) == plain && contents.bytes() == plain.len());
            let from = at.min(plain.len());
            assert_eq!(contents.read(at, 100), &plain[from..plain.len().min(from + 100)]);
        }
    }
}
