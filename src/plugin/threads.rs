//! How many of the sandbox's threads are at work. Waking one costs about as much as a call of a filter, so it is done for
//! a reason only, and a thread that was called but has not noticed yet is not called again.

/// Counts threads. Each says when it goes to sleep and when it has woken, called or not.
#[derive(Debug)]
pub(super) struct Threads {
    all: usize,
    asleep: usize,
    /// Those of the sleepers that have been called and don't know it yet.
    called: usize,
}

impl Threads {
    /// So many threads, all awake.
    pub(super) fn new(all: usize) -> Self {
        Self { all, asleep: 0, called: 0 }
    }

    /// Threads that are at work, or will be in a moment.
    pub(super) fn awake(&self) -> usize {
        self.all - (self.asleep - self.called)
    }

    /// Whether there is one to call.
    pub(super) fn any_asleep(&self) -> bool {
        self.awake() < self.all
    }

    /// A thread goes to sleep.
    pub(super) fn sleeps(&mut self) {
        self.asleep += 1;
    }

    /// A thread has woken. It may have done so by itself; the one that was called then wakes as well, and nothing is lost.
    pub(super) fn wakes(&mut self) {
        self.asleep -= 1;
        self.called = self.called.saturating_sub(1);
    }

    /// One of the sleepers is called.
    pub(super) fn is_called(&mut self) {
        self.called += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_called_counts_at_once() {
        let mut threads = Threads::new(2);
        assert_eq!((threads.awake(), threads.any_asleep()), (2, false));
        threads.sleeps();
        threads.sleeps();
        assert_eq!(threads.awake(), 0);
        threads.is_called();
        assert_eq!((threads.awake(), threads.any_asleep()), (1, true));
        threads.wakes();
        assert_eq!(threads.awake(), 1);
        // One that wakes by itself before the called one does.
        threads.is_called();
        threads.sleeps();
        assert_eq!((threads.awake(), threads.any_asleep()), (1, true));
        threads.wakes();
        threads.wakes();
        assert_eq!((threads.awake(), threads.any_asleep()), (2, false));
    }
}
