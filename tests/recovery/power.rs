//! A disk that loses power: a file system in memory that knows what has been synced. At a cut, each
//! page, size and directory entry that has not been is kept or lost at random, as by a real disk with
//! a cache; what has been synced stays. It takes the memory of what may be read from it, now or after a cut.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::content::{Content, PAGE};
use crate::fuse::{Answer, ENOENT, ENOSYS, ENOTEMPTY, Mounted, Request, op};
use crate::random::Random;

/// The disk. It outlives its mounts.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<Nodes>>);

struct Nodes {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

struct Node {
    mode: u32,
    user: (u32, u32),
    /// As seen by those who read, and as on the disk.
    data: Content,
    synced: Content,
    /// Pages that may differ between the two.
    dirty: BTreeSet<usize>,
    /// How many have it open.
    users_count: u32,
    entries: BTreeMap<String, u64>,
    /// Changes of `entries` since the last sync, each of which happens as a whole.
    unsynced: Vec<Change>,
    synced_entries: BTreeMap<String, u64>,
}

/// Names, and what they mean then.
type Change = Vec<(String, Option<u64>)>;

impl Disk {
    pub(crate) fn new() -> Self {
        let root = Node::new(DIRECTORY | 0o700, (0, 0));
        Self(Arc::new(Mutex::new(Nodes { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1 })))
    }

    /// `None` where that is not allowed.
    pub(crate) fn mount<'a>(&self, at: &'a Path) -> Option<Mounted<'a>> {
        let disk = self.clone();
        Mounted::new(at, move |request| disk.lock().answer(request))
    }

    /// The power fails, while it is not mounted.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        let mut disk = self.lock();
        disk.nodes.values_mut().for_each(|node| node.lose_power(random));
        disk.drop_unreachable();
    }

    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().expect("no request has panicked")
    }
}

impl Nodes {
    fn answer(&mut self, request: &Request) -> Answer {
        let node = request.node;
        match request.opcode {
            op::LOOKUP => self.entry(self.find(node, &name(request, 0))?),
            op::GETATTR => self.attributes(node),
            op::SETATTR => self.set_attributes(request),
            op::MKDIR => self.make(request, DIRECTORY | request.u32(0) & 0o7777, 8),
            op::CREATE => {
                let mut answer = self.make(request, REGULAR | request.u32(4) & 0o7777, 16)?;
                answer.extend(self.open(self.next - 1)?);
                Ok(answer)
            }
            op::UNLINK | op::RMDIR => self.remove(node, &name(request, 0)),
            op::RENAME => self.rename(request, 8),
            op::RENAME2 => self.rename(request, 16),
            op::OPEN | op::OPENDIR => self.open(node),
            op::READ => {
                let (from, bytes_max) = (request.u64(8) as usize, request.u32(16) as usize);
                Ok(self.get(node)?.data.read(from, bytes_max))
            }
            op::WRITE => {
                let size = request.u32(16);
                let bytes = &request.body[40..40 + size as usize];
                self.get(node)?.write(request.u64(8) as usize, bytes);
                Ok([size.to_ne_bytes(), [0; 4]].concat())
            }
            op::FALLOCATE => {
                let to = (request.u64(8) + request.u64(16)) as usize;
                let keeps_size = request.u32(24) & 1 != 0;
                let file = self.get(node)?;
                if !keeps_size && file.data.bytes() < to {
                    file.resize(to);
                }
                Ok(Vec::new())
            }
            op::FSYNC => {
                self.get(node)?.sync();
                Ok(Vec::new())
            }
            op::FSYNCDIR => {
                self.get(node)?.sync();
                self.drop_unreachable();
                Ok(Vec::new())
            }
            op::SYNCFS => {
                self.nodes.values_mut().for_each(Node::sync);
                self.drop_unreachable();
                Ok(Vec::new())
            }
            op::READDIR => self.list(node, request.u64(8) as usize, request.u32(16) as usize),
            op::STATFS => Ok(free_space()),
            op::RELEASE | op::RELEASEDIR => {
                self.get(node)?.users_count -= 1;
                self.drop_unreachable();
                Ok(Vec::new())
            }
            op::FLUSH | op::ACCESS => Ok(Vec::new()),
            _ => Err(ENOSYS),
        }
    }

    fn get(&mut self, node: u64) -> Result<&mut Node, i32> {
        self.nodes.get_mut(&node).ok_or(ENOENT)
    }

    fn find(&self, folder: u64, name: &str) -> Result<u64, i32> {
        let folder = self.nodes.get(&folder).ok_or(ENOENT)?;
        folder.entries.get(name).copied().ok_or(ENOENT)
    }

    /// `fuse_open_out`
    fn open(&mut self, node: u64) -> Answer {
        self.get(node)?.users_count += 1;
        Ok(vec![0; 16])
    }

    /// Drops what nobody has open and what no name leads to, whether the power fails or not.
    fn drop_unreachable(&mut self) {
        let mut named = HashSet::from([ROOT]);
        for node in self.nodes.values() {
            named.extend(node.entries.values().chain(node.synced_entries.values()));
            named.extend(node.unsynced.iter().flatten().filter_map(|(_, node)| *node));
        }
        self.nodes.retain(|number, node| node.users_count > 0 || named.contains(number));
    }

    fn make(&mut self, request: &Request, mode: u32, name_at: usize) -> Answer {
        let made = self.next;
        self.next += 1;
        self.nodes.insert(made, Node::new(mode, request.user));
        self.get(request.node)?.change(vec![(name(request, name_at), Some(made))]);
        self.entry(made)
    }

    /// The inode stays: who has it open may use it, and the entry may come back.
    fn remove(&mut self, folder: u64, name: &str) -> Answer {
        let removed = self.find(folder, name)?;
        if !self.get(removed)?.entries.is_empty() {
            return Err(ENOTEMPTY);
        }
        self.get(folder)?.change(vec![(name.to_owned(), None)]);
        Ok(Vec::new())
    }

    fn rename(&mut self, request: &Request, names_at: usize) -> Answer {
        let (from, to) = (request.node, request.u64(0));
        let mut names = request.names(names_at);
        let (old, new) = (names.next().ok_or(ENOENT)?, names.next().ok_or(ENOENT)?);
        let moved = self.find(from, &old)?;
        let (gone, come) = ((old, None), (new, Some(moved)));
        if from == to {
            self.get(from)?.change(vec![gone, come]);
        } else {
            self.get(from)?.change(vec![gone]);
            self.get(to)?.change(vec![come]);
        }
        Ok(Vec::new())
    }

    fn set_attributes(&mut self, request: &Request) -> Answer {
        const MODE: u32 = 1;
        const SIZE: u32 = 8;
        let valid = request.u32(0);
        let (size, mode) = (request.u64(16) as usize, request.u32(68));
        let node = self.get(request.node)?;
        if valid & SIZE != 0 {
            node.resize(size);
        }
        if valid & MODE != 0 {
            node.mode = node.mode & FORMAT | mode & 0o7777;
        }
        self.attributes(request.node)
    }

    /// `fuse_entry_out`; nothing in it may be kept by the kernel.
    fn entry(&mut self, number: u64) -> Answer {
        let mut bytes = number.to_ne_bytes().to_vec();
        bytes.resize(40, 0);
        bytes.extend(self.get(number)?.attributes(number));
        Ok(bytes)
    }

    /// `fuse_attr_out`
    fn attributes(&mut self, number: u64) -> Answer {
        let mut bytes = vec![0; 16];
        bytes.extend(self.get(number)?.attributes(number));
        Ok(bytes)
    }

    /// `fuse_dirent`s
    fn list(&mut self, folder: u64, from: usize, bytes_max: usize) -> Answer {
        let entries = self.get(folder)?.entries.clone();
        let mut bytes = Vec::new();
        for (at, (name, number)) in entries.iter().enumerate().skip(from) {
            let size = (24 + name.len()).next_multiple_of(8);
            if bytes.len() + size > bytes_max {
                break;
            }
            let start = bytes.len();
            bytes.extend(number.to_ne_bytes());
            bytes.extend((at as u64 + 1).to_ne_bytes());
            bytes.extend((name.len() as u32).to_ne_bytes());
            bytes.extend((self.get(*number)?.mode >> 12).to_ne_bytes());
            bytes.extend(name.as_bytes());
            bytes.resize(start + size, 0);
        }
        Ok(bytes)
    }
}

impl Node {
    fn new(mode: u32, user: (u32, u32)) -> Self {
        Self {
            mode,
            user,
            data: Content::default(),
            synced: Content::default(),
            dirty: BTreeSet::new(),
            users_count: 0,
            entries: BTreeMap::new(),
            unsynced: Vec::new(),
            synced_entries: BTreeMap::new(),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.data.write(at, bytes);
        self.dirty.extend(at / PAGE..(at + bytes.len()).div_ceil(PAGE));
    }

    fn resize(&mut self, bytes: usize) {
        self.dirty.extend(self.data.pages_from(bytes));
        self.data.resize(bytes);
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.entries, &change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        self.synced.resize(self.data.bytes());
        for page in std::mem::take(&mut self.dirty) {
            self.synced.take_page(&self.data, page);
        }
        self.synced_entries.clone_from(&self.entries);
        self.unsynced.clear();
    }

    fn lose_power(&mut self, random: &mut Random) {
        self.users_count = 0;
        if random.one_in(2) {
            self.synced.resize(self.data.bytes());
        }
        for page in std::mem::take(&mut self.dirty) {
            if random.one_in(2) {
                self.synced.take_page(&self.data, page);
            }
        }
        self.data.clone_from(&self.synced);
        // A journal keeps the order of these.
        let kept = random.below(self.unsynced.len() as u64 + 1) as usize;
        for change in self.unsynced.drain(..).take(kept) {
            apply(&mut self.synced_entries, &change);
        }
        self.entries.clone_from(&self.synced_entries);
    }

    /// `fuse_attr`
    fn attributes(&self, number: u64) -> Vec<u8> {
        let size = self.data.bytes() as u64;
        let mut bytes: Vec<u8> =
            [number, size, size.div_ceil(512)].iter().flat_map(|n| n.to_ne_bytes()).collect();
        bytes.resize(60, 0);
        let words = [self.mode, 1, self.user.0, self.user.1, 0, PAGE as u32, 0];
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }
}

fn apply(entries: &mut BTreeMap<String, u64>, change: &Change) {
    for (name, node) in change {
        match node {
            Some(node) => drop(entries.insert(name.clone(), *node)),
            None => drop(entries.remove(name)),
        }
    }
}

fn name(request: &Request, at: usize) -> String {
    request.names(at).next().unwrap_or_default()
}

/// `fuse_statfs_out`: plenty.
fn free_space() -> Vec<u8> {
    let blocks = 1u64 << 20;
    let mut bytes: Vec<u8> =
        [blocks, blocks, blocks, blocks, blocks].iter().flat_map(|n| n.to_ne_bytes()).collect();
    bytes.extend([PAGE as u32, 255, PAGE as u32].iter().flat_map(|word| word.to_ne_bytes()));
    bytes.resize(80, 0);
    bytes
}

const ROOT: u64 = 1;
const FORMAT: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;
    use crate::process::Scratch;

    /// The disk itself does what it says, over many cuts.
    #[test]
    fn what_is_synced_stays_and_what_is_not_may_go() {
        let (scratch, disk, mut random) = (Scratch::new(), Disk::new(), Random::new(7, 7));
        let data = scratch.data();
        fs::create_dir(&data).expect("a directory");
        let path = |name: &str| data.join(name);
        let mut lost = 0;
        for round in 0..20u8 {
            let Some(mount) = disk.mount(&data) else {
                println!("SKIPPED: a file system can only be mounted by root");
                return;
            };
            let mut synced = File::create(path("new")).expect("a file");
            synced.write_all(&[round; 20_000]).expect("room");
            synced.sync_all().expect("it can be synced");
            fs::rename(path("new"), path("synced")).expect("it can be renamed");
            File::open(&data).expect("a folder").sync_all().expect("it can be synced");
            let mut cached = File::options().append(true).open(path("synced")).expect("a file");
            cached.write_all(&[0xff; 20_000]).expect("room");
            fs::write(path("cached"), "gone?").expect("room");
            let listed = fs::read_dir(&data).expect("a folder").count();
            assert!(
                (2..=3).contains(&listed)
                    && fs::read(path("synced")).expect("a file").len() == 40_000
            );
            let reserved = File::create(path("reserved")).expect("a file");
            reserved.set_len(1 << 30).expect("room");
            reserved.sync_all().expect("it can be synced");
            drop((synced, cached, reserved, mount));
            disk.lose_power(&mut random);
            let mount = disk.mount(&data).expect("it was allowed before");
            let kept = fs::read(path("synced")).expect("it is synced, and so is its folder");
            assert!(kept.starts_with(&[round; 20_000]), "synced bytes are lost");
            lost += u32::from(kept.len() != 40_000 || kept[20_000..].contains(&0));
            drop(mount);
            // Two files of 20,000 to 40,000 bytes, an empty one, a small one.
            let disk = disk.lock();
            let pages: usize = disk.nodes.values().map(|node| node.data.pages_count()).sum();
            assert!(disk.nodes.len() <= 6 && pages <= 32, "{} {pages}", disk.nodes.len());
        }
        assert!(lost > 10, "only {lost} of 20 cuts have lost anything");
    }
}
