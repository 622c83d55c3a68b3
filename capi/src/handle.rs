use std::ffi::{c_char, c_int};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ocbus::emsmdb::{Emsmdb, Query, Reply, Sharing};
use ocbus::resolver::{Resolver, SessionRecords};
use ocbus::{Bus, Subscriber};
use tokio::runtime::Runtime;

use crate::arguments::Out;
use crate::ids;
use crate::log;
use crate::options::{Log, ocbus_options};
use crate::outbox::{Job, Outbox};
use crate::runtime;
use crate::status::ocbus_status::*;
use crate::status::{Error, guard, ocbus_status};

/// The emsmdb sessions of a process.
///
/// Threads: every function that takes one may be called from any thread at any time, by several at once, but
/// ocbus_destroy(), which must be the last, and while no other is running. No function calls back but ocbus_dispatch()
/// and ocbus_destroy(). The library has at most two threads of its own ("ocbus-1", "ocbus-2"), a few of libnng and now
/// and then one that looks up a name; they run no code of the server. It sets no signal handler, and its threads have all
/// signals blocked.
///
/// Forks: create it in the process that uses it, after a daemon's forks. In a forked child each function that takes one
/// fails with OCBUS_ERROR_FORKED and does nothing else, at once; ocbus_destroy() closes the child's copy of the
/// descriptor and leaves the parent's sessions alone. Nor can a child create one if its parent has.
pub struct ocbus_t {
    /// In which process it was created.
    pid: u32,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) emsmdb: Emsmdb,
    pub(crate) bus: Bus,
    pub(crate) runtime: Runtime,
    pub(crate) subscriber: Option<Arc<Subscriber>>,
    ids: ids::Callback,
    log: Option<Log>,
    stop_timeout: Duration,
    /// Threads that are within a callback.
    calling: AtomicU32,
}

/// The first process that created one: nng's threads are there and nowhere else.
static FIRST: OnceLock<u32> = OnceLock::new();

fn forked() -> Error {
    Error::new(
        OCBUS_ERROR_FORKED,
        "it was created before this process forked: expected ocbus_create() in the process that uses it",
    )
}

/// The handle, if it is this process's.
///
/// # Safety
/// `ocbus` is NULL, or comes from `ocbus_create` and is not destroyed before the call is over.
pub(crate) unsafe fn get<'a>(ocbus: *const ocbus_t) -> Result<&'a ocbus_t, Error> {
    // SAFETY: as the caller promised.
    let ocbus = unsafe { ocbus.as_ref() }.ok_or_else(|| Error::argument("ocbus is NULL"))?;
    match ocbus.pid == std::process::id() {
        true => Ok(ocbus),
        false => Err(forked()),
    }
}

/// The version of the library, such as "0.1.0". Within 0.1 and within any later major version, functions and names of
/// settings are only added.
///
/// Ownership: the library's, valid for ever. Threads: any. Errors: none; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ocbus_version() -> *const c_char {
    const { concat!(env!("CARGO_PKG_VERSION"), "\0") }.as_ptr().cast()
}

/// Starts: binds the endpoint that other processes send events to (setting `bind`) and starts the threads. A resolver
/// that does not answer, or whose name is not known yet, is no error: users are registered as soon as it does. To be
/// called when the process does not fork any more, see ocbus_t.
///
/// Ownership: `options` stay the caller's, and may be freed at once. `*ocbus` is the caller's, to be given to
/// ocbus_destroy(); NULL at an error. Threads: any. Errors: OCBUS_ERROR_ARGUMENT (no ids callback),
/// OCBUS_ERROR_CONFIG (the message names the setting), OCBUS_ERROR_SYSTEM (the endpoint, a thread, a descriptor),
/// OCBUS_ERROR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_create(
    options: *const ocbus_options,
    ocbus: *mut *mut ocbus_t,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let out = unsafe { Out::new("ocbus", ocbus)? };
        out.set(ptr::null_mut());
        // SAFETY: likewise.
        let options = unsafe { options.as_ref() }.ok_or_else(|| Error::argument("options is NULL"))?;
        if FIRST.get().is_some_and(|first| *first != std::process::id()) {
            return Err(forked());
        }
        // All threads inherit the mask: tokio's, and nng's, which come with the first socket.
        let created = runtime::with_signals_blocked(|| create(options))?;
        out.set(Box::into_raw(Box::new(created)));
        Ok(())
    })
}

fn create(options: &ocbus_options) -> Result<ocbus_t, Error> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Error::new(OCBUS_ERROR_SYSTEM, format!("{what}: {error}"))
    };
    let ids = options.ids.ok_or_else(|| {
        Error::argument("options have no ids callback: expected ocbus_options_set_ids() before")
    })?;
    let settings = &options.settings;
    let outbox = Arc::new(Outbox::new(settings.emsmdb.engine.sessions).map_err(system("eventfd"))?);
    if let Some(log) = options.log {
        log::attach(&outbox, log.level);
    }
    runtime::report_panics();
    let runtime = runtime::start(settings.threads).map_err(system("start threads"))?;
    let bus = Bus::new();
    let (subscriber, emsmdb) = runtime.block_on(async {
        let mut sharing = None;
        let subscriber = match &settings.resolver {
            None if settings.sharing.is_some() => {
                let message = "sharing: expected a resolver, in whose memcached the records are, not none";
                return Err(Error::new(OCBUS_ERROR_CONFIG, message));
            }
            None => None,
            Some(config) => {
                let charset = settings.subscriber.charset;
                let resolver = Resolver::new(config, charset, settings.resolver_timeout).await;
                let resolver =
                    resolver.map_err(|error| Error::new(OCBUS_ERROR_CONFIG, format!("resolver: {error}")))?;
                sharing =
                    settings.sharing.map(|part| Sharing { records: SessionRecords::new(&resolver), part });
                // nng's threads come with its first socket, and stay.
                FIRST.get_or_init(std::process::id);
                let started = Subscriber::start(settings.subscriber.clone(), resolver, bus.clone()).await;
                Some(Arc::new(started.map_err(start_error)?))
            }
        };
        let asked = Arc::clone(&outbox);
        let ids = move |query: Query, reply: Reply| asked.push_query(query, reply);
        let (feed, config) = (subscriber.clone(), settings.emsmdb.clone());
        let emsmdb = match sharing {
            None => Emsmdb::attach(&bus, feed, ids, config),
            Some(sharing) => Emsmdb::attach_shared(&bus, feed, ids, sharing, config),
        };
        let emsmdb = emsmdb.map_err(|error| Error::new(OCBUS_ERROR_CONFIG, error.to_string()))?;
        Ok::<_, Error>((subscriber, emsmdb))
    })?;
    Ok(ocbus_t {
        pid: std::process::id(),
        outbox,
        emsmdb,
        bus,
        runtime,
        subscriber,
        ids,
        log: options.log,
        stop_timeout: settings.stop_timeout,
        calling: AtomicU32::new(0),
    })
}

fn start_error(error: ocbus::subscriber::SubscriberError) -> Error {
    let status = match error {
        ocbus::subscriber::SubscriberError::Listen(_) => OCBUS_ERROR_SYSTEM,
        _ => OCBUS_ERROR_CONFIG,
    };
    Error::new(status, error.to_string())
}

/// The descriptor to be polled: it is readable as long as ocbus_dispatch() or ocbus_wait_next() has something to do. One for
/// the whole life of `ocbus`, level-triggered; only to be polled, never to be read, written or closed.
///
/// Ownership: the library's. Threads: any. Errors: -1, and ocbus_last_status() says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_fd(ocbus: *const ocbus_t) -> c_int {
    let mut descriptor: RawFd = -1;
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        descriptor = unsafe { get(ocbus)? }.outbox.descriptor();
        Ok(())
    });
    descriptor
}

/// Calls the callbacks for all that has happened: lines of the log, answered waits, questions. Never waits. To be called
/// when ocbus_fd() is readable; what comes up meanwhile makes it readable again.
///
/// Threads: any, and callbacks are called in it. Several at once are right if the callbacks expect it; a server with one
/// thread calls it from there. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_BUSY (from within a callback).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_dispatch(ocbus: *const ocbus_t) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let handle = unsafe { get(ocbus)? };
        if within_callback() {
            return Err(Error::new(OCBUS_ERROR_BUSY, "a callback cannot dispatch: it is being dispatched"));
        }
        // What callbacks bring about is the next round's: a loop without end would starve the server's other events.
        for _ in 0..handle.outbox.jobs() {
            let Some(job) = handle.outbox.next_job() else { break };
            // SAFETY: the host called to be called back.
            unsafe { run(ocbus, handle, job) };
        }
        Ok(())
    })
}

thread_local! {
    /// This thread is within a callback of any handle.
    static WITHIN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn within_callback() -> bool {
    WITHIN.get()
}

/// Calls back.
///
/// # Safety
/// In a thread of the host that has called the library to be called back, by the handle that it gave.
unsafe fn run(ocbus: *const ocbus_t, handle: &ocbus_t, job: Job) {
    let _calling = Calling::new(&handle.calling);
    match job {
        Job::Line(line) => {
            if let Some(log) = handle.log {
                // SAFETY: as the caller promised.
                unsafe { log.line(&line) }
            }
        }
        Job::Answered(answered) => {
            if let Some(callback) = answered.wait.callback {
                // SAFETY: as the caller promised.
                unsafe { callback.answer(ocbus, &answered) }
            }
        }
        // SAFETY: likewise.
        Job::Query(query, reply) => unsafe { handle.ids.ask(ocbus, query, reply) },
    }
}

/// Says that a callback is running, in this thread and for this handle.
struct Calling<'a>(&'a AtomicU32);

impl Calling<'_> {
    fn new(count: &AtomicU32) -> Calling<'_> {
        count.fetch_add(1, Ordering::AcqRel);
        WITHIN.set(true);
        Calling(count)
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        WITHIN.set(false);
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ends: answers every parked wait with OCBUS_OUTCOME_EXITING by its callback, takes the users' registrations back,
/// gives the log its last lines, ends the threads and frees all. Takes as long as setting `stop_timeout_ms` at most,
/// plus what the callbacks take. Afterwards `ocbus` must not be used any more, nor its descriptor polled. NULL is right.
///
/// In a forked child it closes the child's copy of the descriptor, and nothing else: see ocbus_t.
///
/// Threads: any, while no other call with it is running. Errors: OCBUS_ERROR_BUSY (from within a callback, or while
/// one is running; it lives on). A wait without a callback is not told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_destroy(ocbus: *mut ocbus_t) -> ocbus_status {
    guard(|| {
        if ocbus.is_null() {
            return Ok(());
        }
        let busy = || {
            let what = "a callback is running: expected ocbus_destroy() after it";
            Err(Error::new(OCBUS_ERROR_BUSY, what))
        };
        // Looked at first: behind the last lines of a log there is no handle any more.
        if within_callback() {
            return busy();
        }
        // SAFETY: as ocbus.h asks of the caller: from ocbus_create(), and nobody uses it.
        let handle = unsafe { &*ocbus };
        if handle.pid != std::process::id() {
            // SAFETY: nobody polls it in this process any more.
            unsafe { abandon(ocbus) };
            return Ok(());
        }
        if handle.calling.load(Ordering::Acquire) > 0 {
            return busy();
        }
        let deadline = Instant::now() + handle.stop_timeout;
        runtime::with_signals_blocked(|| handle.runtime.block_on(handle.emsmdb.stop(handle.stop_timeout)));
        handle.outbox.end_joining();
        while let Some(job) = handle.outbox.next_job() {
            match job {
                // The server need not look up any more what nobody will be told.
                Job::Query(..) => {}
                // SAFETY: the host called to be called back.
                job => unsafe { run(ocbus, handle, job) },
            }
        }
        // SAFETY: from ocbus_create(), whose box it was, and nobody uses it any more.
        let handle = unsafe { Box::from_raw(ocbus) };
        let (log, outbox) = (handle.log, Arc::clone(&handle.outbox));
        runtime::with_signals_blocked(|| stop(*handle, deadline));
        let calling = AtomicU32::new(0);
        while let Some(job) = outbox.next_job() {
            if let (Job::Line(line), Some(log)) = (job, log) {
                let _calling = Calling::new(&calling);
                // SAFETY: as above.
                unsafe { log.line(&line) };
            }
        }
        Ok(())
    })
}

/// Ends what runs, until the deadline if it can be had.
fn stop(handle: ocbus_t, deadline: Instant) {
    let ocbus_t { emsmdb, runtime, subscriber, .. } = handle;
    drop(emsmdb);
    let left = || deadline.saturating_duration_since(Instant::now());
    runtime.block_on(async {
        let Some(mut shared) = subscriber else { return };
        // The tasks of `emsmdb` have it too, and are just ending.
        loop {
            match Arc::try_unwrap(shared) {
                Ok(subscriber) => return subscriber.stop(left()).await,
                Err(_) if left().is_zero() => return,
                Err(again) => shared = again,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    // A look-up of a name may still be waiting: its thread ends by itself.
    runtime.shutdown_timeout(left());
}

/// In a forked child: the threads that would free it are not there, and its locks may be held by them. The memory goes
/// with the process.
///
/// # Safety
/// As for [`ocbus_destroy`].
unsafe fn abandon(ocbus: *mut ocbus_t) {
    static ABANDONED: AtomicPtr<ocbus_t> = AtomicPtr::new(ptr::null_mut());
    // Kept in sight, so that a leak checker does not complain of what is meant.
    ABANDONED.store(ocbus, Ordering::Relaxed);
    // SAFETY: the handle is never used again in this process, and so its descriptor is not either.
    unsafe { libc::close((*ocbus).outbox.descriptor()) };
}
