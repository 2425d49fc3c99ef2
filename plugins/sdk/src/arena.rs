//! The allocator of a component: it hands out a static arena from the front and never goes back.
//! An instance serves one event and is thrown away, so there is nothing to reuse, and while the
//! arena lasts no memory is grown: growing is a system call in the router that every core waits
//! for. It is not larger than most events need, since all that an instance could have touched is
//! looked through when it is thrown away. Past it memory grows, in larger steps.

/// Enough for an ordinary event many times over.
#[cfg_attr(test, expect(dead_code, reason = "only a component has the arena"))]
const ARENA_BYTES: usize = 256 * 1024;
/// What it grows by: few system calls for what is large.
#[cfg_attr(test, expect(dead_code, reason = "only a component has the arena"))]
const GROWTH_BYTES: usize = 1024 * 1024;

/// Where the next allocation goes. Addresses are plain numbers here, so that it can be tested.
struct Bump {
    next: usize,
    end: usize,
}

impl Bump {
    /// The address of `size` bytes, if they still fit.
    fn place(&mut self, size: usize, align: usize) -> Option<usize> {
        // Alignments are powers of two; a division would take as long as all the rest.
        let address = self.next.checked_add(align - 1)? & !(align - 1);
        let next = address.checked_add(size)?;
        if next > self.end {
            return None;
        }
        self.next = next;
        Some(address)
    }

    /// Takes in fresh memory. What was left of older memory is kept only where the two touch.
    fn add(&mut self, start: usize, bytes: usize) {
        if start != self.end {
            self.next = start;
        }
        self.end = start + bytes;
    }

    /// Gives the newest allocation another size where it stands. This is what makes a growing
    /// string cheap: it is nearly always the newest.
    fn resize_newest(&mut self, address: usize, old: usize, new: usize) -> bool {
        let Some(next) = address.checked_add(new) else {
            return false;
        };
        if address + old != self.next || next > self.end {
            return false;
        }
        self.next = next;
        true
    }
}

#[cfg(not(test))]
#[expect(unsafe_code, reason = "an allocator is unsafe by contract")]
mod global {
    use std::alloc::{GlobalAlloc, Layout};
    use std::cell::UnsafeCell;
    use std::ptr;

    use super::{ARENA_BYTES, Bump, GROWTH_BYTES};

    const PAGE_BYTES: usize = 65_536;

    #[global_allocator]
    static ALLOCATOR: Arena =
        Arena { bump: UnsafeCell::new(Bump { next: 0, end: 0 }), block: UnsafeCell::new([0; ARENA_BYTES]) };

    struct Arena {
        bump: UnsafeCell<Bump>,
        block: UnsafeCell<[u8; ARENA_BYTES]>,
    }

    // SAFETY: a component of this contract has one thread, and no allocation interrupts another.
    unsafe impl Sync for Arena {}

    // SAFETY: `Bump` never gives out the same address twice, except the newest allocation's own
    // bytes, and only to that allocation; all addresses come from the block or from fresh memory.
    unsafe impl GlobalAlloc for Arena {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: one thread, and the reference does not leave this function.
            let bump = unsafe { &mut *self.bump.get() };
            if bump.end == 0 {
                bump.add(self.block.get() as usize, ARENA_BYTES);
            }
            if let Some(address) = bump.place(layout.size(), layout.align()) {
                return address as *mut u8;
            }
            // Where the limit leaves less room than a step, what is wanted may still fit.
            let wanted = layout.size().saturating_add(layout.align());
            for bytes in [wanted.max(GROWTH_BYTES), wanted] {
                let pages = bytes.div_ceil(PAGE_BYTES);
                let before = std::arch::wasm32::memory_grow::<0>(pages);
                if before != usize::MAX {
                    bump.add(before * PAGE_BYTES, pages * PAGE_BYTES);
                    break;
                }
            }
            bump.place(layout.size(), layout.align()).map_or(ptr::null_mut(), |address| address as *mut u8)
        }

        unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
            // SAFETY: as in `alloc`.
            let bump = unsafe { &mut *self.bump.get() };
            bump.resize_newest(address as usize, layout.size(), 0);
        }

        unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: as in `alloc`.
            let bump = unsafe { &mut *self.bump.get() };
            if bump.resize_newest(address as usize, layout.size(), size) || size <= layout.size() {
                return address;
            }
            // SAFETY: the caller promises that `size` with the same alignment is a layout; the old
            // and the new place do not overlap, and both have `layout.size()` bytes.
            unsafe {
                let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if !new.is_null() {
                    ptr::copy_nonoverlapping(address, new, layout.size());
                }
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bump;

    #[test]
    fn allocations_are_aligned_and_do_not_overlap() {
        let mut bump = Bump { next: 100, end: 200 };
        assert_eq!(bump.place(3, 1), Some(100));
        assert_eq!(bump.place(8, 8), Some(104));
        assert_eq!(bump.place(1, 1), Some(112));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut bump = Bump { next: 100, end: 110 };
        assert_eq!(bump.place(11, 1), None);
        assert_eq!(bump.place(usize::MAX, 8), None);
        assert_eq!(bump.place(10, 1), Some(100));
    }

    #[test]
    fn only_the_newest_allocation_changes_its_size_in_place() {
        let mut bump = Bump { next: 100, end: 200 };
        bump.place(10, 1);
        bump.place(10, 1);
        assert!(!bump.resize_newest(100, 10, 20), "not the newest");
        assert!(bump.resize_newest(110, 10, 90), "up to the end");
        assert!(!bump.resize_newest(110, 90, 91), "past the end");
        assert!(bump.resize_newest(110, 90, 0), "given back");
        assert_eq!(bump.place(1, 1), Some(110));
    }

    #[test]
    fn fresh_memory_that_touches_the_old_continues_it() {
        let mut bump = Bump { next: 100, end: 110 };
        bump.add(110, 100);
        assert_eq!(bump.place(50, 1), Some(100));
        bump.add(500, 100);
        assert_eq!(bump.place(50, 1), Some(500));
    }
}
