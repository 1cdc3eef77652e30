//! The slab: plain entries in pages that never move, so that growing costs one page and not a
//! copy of everything. A freed slot's generation grows, which is what makes late completions
//! harmless.

use super::token::GENERATION_MASK;

/// Entries of a page.
const PAGE: usize = 256;

/// Where an entry lives, and which of the entries that lived there it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub slot: u32,
    pub generation: u32,
}

#[derive(Debug)]
struct Cell<T> {
    generation: u32,
    /// The next free slot while this one is free.
    entry: Result<T, Option<u32>>,
}

/// Entries by slot, each found by a [`Key`] that is valid for as long as the entry lives.
#[derive(Debug)]
pub struct Slab<T> {
    pages: Vec<Box<[Cell<T>]>>,
    free: Option<u32>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), free: None, len: 0 }
    }
}

impl<T> Slab<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Slots that exist, taken or free.
    pub fn slots(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    /// Puts an entry into a free slot.
    pub fn insert(&mut self, entry: T) -> Key {
        let slot = match self.free {
            Some(slot) => slot,
            None => self.grow(),
        };
        let cell = self.cell_mut(slot);
        let next = match std::mem::replace(&mut cell.entry, Ok(entry)) {
            Err(next) => next,
            Ok(_) => unreachable!("a slot on the free list is free"),
        };
        let generation = cell.generation;
        self.free = next;
        self.len += 1;
        Key { slot, generation }
    }

    /// Takes an entry out; its key is never valid again.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let free = self.free;
        let cell = self.cell_mut(key.slot);
        // Only so much of it travels in a request's name.
        cell.generation = (cell.generation + 1) & GENERATION_MASK;
        let entry = std::mem::replace(&mut cell.entry, Err(free)).ok();
        self.free = Some(key.slot);
        self.len -= 1;
        entry
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let cell = self.pages.get(key.slot as usize / PAGE)?.get(key.slot as usize % PAGE)?;
        if cell.generation == key.generation { cell.entry.as_ref().ok() } else { None }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let page = self.pages.get_mut(key.slot as usize / PAGE)?;
        let cell = page.get_mut(key.slot as usize % PAGE)?;
        if cell.generation == key.generation { cell.entry.as_mut().ok() } else { None }
    }

    /// The key of the entry in `slot`, if one lives there.
    pub fn key_at(&self, slot: u32) -> Option<Key> {
        let cell = self.pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)?;
        cell.entry.is_ok().then_some(Key { slot, generation: cell.generation })
    }

    /// Keys of all entries.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.slots()).filter_map(|slot| self.key_at(slot))
    }

    fn grow(&mut self) -> u32 {
        let first = self.slots();
        let page = (0..PAGE as u32).map(|i| Cell {
            generation: 0,
            entry: Err((i + 1 < PAGE as u32).then_some(first + i + 1)),
        });
        self.pages.push(page.collect());
        first
    }

    fn cell_mut(&mut self, slot: u32) -> &mut Cell<T> {
        &mut self.pages[slot as usize / PAGE][slot as usize % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_entry() {
        let mut slab = Slab::default();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        assert_eq!(slab.remove(first), None);
        let second = slab.insert("b");
        assert_eq!(second.slot, first.slot);
        assert!(slab.get(first).is_none());
        assert_eq!(slab.get(second), Some(&"b"));
    }

    #[test]
    fn it_grows_by_pages_and_reuses_slots() {
        let mut slab = Slab::default();
        let keys: Vec<_> = (0..1000).map(|n| slab.insert(n)).collect();
        assert_eq!((slab.len(), slab.slots()), (1000, 1024));
        for key in keys.iter().step_by(2) {
            slab.remove(*key);
        }
        assert_eq!(slab.keys().count(), 500);
        for n in 0..500 {
            slab.insert(n);
        }
        assert_eq!(slab.slots(), 1024);
    }
}
