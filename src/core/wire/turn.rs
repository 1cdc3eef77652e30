//! What one turn has to send, gathered per flow: spans in order, one send each. Two of these take
//! turns, as the scratch halves do: one is being filled while the other's sends are in the kernel.

use crate::sys::memory::Span;

use super::entry::NONE;
use super::slab::Key;

/// A flow with bytes to send this turn.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing {
    pub key: Key,
    /// Which flow of the pipe, 0 or 1.
    pub flow: usize,
    first: u32,
    last: u32,
    count: u32,
    pub bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    span: Span,
    next: u32,
}

/// What one turn sends, and the receive buffers that its bytes lie in.
#[derive(Debug, Default)]
pub struct Turn {
    outgoing: Vec<Outgoing>,
    links: Vec<Link>,
    /// Provided buffers this turn's spans lie in; the kernel gets them back after the sends.
    pub buffers: Vec<u16>,
}

impl Turn {
    /// Adds bytes at the end of what `flow` of `key` has to send; `index` is what an earlier call
    /// of this turn returned for it, or [`NONE`].
    pub fn push(&mut self, index: u32, key: Key, flow: usize, span: Span) -> u32 {
        let link = self.links.len() as u32;
        let Some(out) = self.outgoing.get_mut(index as usize) else {
            self.links.push(Link { span, next: NONE });
            let bytes = span.len();
            self.outgoing.push(Outgoing { key, flow, first: link, last: link, count: 1, bytes });
            return self.outgoing.len() as u32 - 1;
        };
        debug_assert!(out.key == key && out.flow == flow);
        out.bytes += span.len();
        let last = &mut self.links[out.last as usize];
        if last.span.touches(span) {
            last.span = last.span.join(span);
            return index;
        }
        last.next = link;
        out.last = link;
        out.count += 1;
        self.links.push(Link { span, next: NONE });
        index
    }

    pub fn len(&self) -> usize {
        self.outgoing.len()
    }

    pub fn get(&self, index: usize) -> Option<Outgoing> {
        self.outgoing.get(index).copied()
    }

    /// The spans of one flow, in order.
    pub fn spans(&self, out: &Outgoing) -> Spans<'_> {
        Spans { links: &self.links, next: out.first, left: out.count as usize }
    }

    pub fn clear(&mut self) {
        self.outgoing.clear();
        self.links.clear();
        self.buffers.clear();
    }
}

/// Iterator over a flow's spans.
#[derive(Debug)]
pub struct Spans<'a> {
    links: &'a [Link],
    next: u32,
    left: usize,
}

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let link = self.links.get(self.next as usize)?;
        self.next = link.next;
        self.left -= 1;
        Some(link.span)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Spans<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::Memory;

    #[test]
    fn spans_stay_in_order_and_neighbours_join() {
        let mut memory = Memory::new().unwrap();
        let key = Key { slot: 1, generation: 0 };
        let other = Key { slot: 2, generation: 0 };
        let mut turn = Turn::default();
        let a = memory.allocate(8).unwrap();
        let b = memory.allocate(8).unwrap();
        let c = memory.allocate(9).unwrap();
        let d = memory.allocate(3).unwrap();
        let index = turn.push(NONE, key, 0, a);
        assert_eq!(turn.push(index, key, 0, b), index);
        assert_eq!(turn.push(NONE, other, 1, c), 1);
        turn.push(index, key, 0, d);
        let out = turn.get(0).unwrap();
        assert_eq!(out.bytes, 19);
        assert_eq!(turn.spans(&out).map(Span::len).collect::<Vec<_>>(), [16, 3]);
        assert_eq!(turn.spans(&out).len(), 2);
    }
}
