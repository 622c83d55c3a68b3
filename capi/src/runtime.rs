//! The threads of the library.

use std::mem::MaybeUninit;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};

/// Threads that wait for the resolver's names: tokio starts them when they are needed, and ends them again.
const BLOCKING_THREADS: usize = 2;

/// A runtime with so many threads, whose names are `ocbus-1`, `ocbus-2`.
pub(crate) fn start(threads: usize) -> std::io::Result<Runtime> {
    let started = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name_fn(move || format!("ocbus-{}", started.fetch_add(1, Ordering::Relaxed) + 1))
        .enable_all()
        .build()
}

/// Threads that are started meanwhile take no signal of the host: they inherit the mask. Those of a fault in the
/// thread itself stay open, so that the host's handler, if it has one, says where it was.
pub(crate) fn with_signals_blocked<R>(call: impl FnOnce() -> R) -> R {
    let _restored = Blocked::new();
    call()
}

struct Blocked(Option<libc::sigset_t>);

impl Blocked {
    fn new() -> Blocked {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset writes all of the set; the others read it, and `before` is read only if it was written.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            let done = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Blocked((done == 0).then(|| before.assume_init()))
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: a mask that the system gave, and nothing to be written.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
        }
    }
}

/// A panic is a line in the host's log, and none on standard error, which is not ours.
pub(crate) fn report_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!(event = "panicked", "a defect of libocbus: {panic}");
        }));
    });
}
