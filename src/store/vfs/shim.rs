//! The VFS itself: C structures in front of the system's own. The one file of the store that is unsafe.
//!
//! Every method is handed on to the system's VFS. In front of the calls that change the disk stands the [`Watch`].
#![allow(
    unsafe_code,
    reason = "SQLite calls a VFS through tables of C functions, and a file is memory that SQLite allocates for us"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ffi::{
    self, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_syscall_ptr, sqlite3_vfs,
};

use super::disk::Watch;
use super::fault::{Call, Harm};
use super::trace::Event;

/// What one registered VFS owns. It lives as long as the process, because SQLite may hold on to it.
struct Shim {
    system: *mut sqlite3_vfs,
    watch: Arc<Watch>,
    /// Held over a call and its record, so that the record has the order of the calls.
    turn: Mutex<()>,
}

/// A file as SQLite allocates it for us. The system's own file follows behind it in the same allocation.
#[repr(C)]
struct File {
    base: sqlite3_file,
    shim: *const Shim,
    system: *mut sqlite3_file,
    /// None for a file without a name: a temporary one.
    name: *mut FileName,
}

struct FileName {
    name: Arc<str>,
    /// The system syncs the folder with the first sync of a new log or journal.
    folder_due: bool,
    /// Failed syncs of this file that this handle has told about.
    told: u64,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without xFetch: nothing is read or written past these functions.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Registers a VFS for `watch` and returns its name. Some hundred bytes stay allocated for the rest of the process.
pub(super) fn register(watch: Arc<Watch>) -> rusqlite::Result<&'static CStr> {
    let failed = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    // SAFETY: initialising is idempotent and thread-safe; a null name asks for the default VFS.
    let system = unsafe {
        ffi::sqlite3_initialize();
        ffi::sqlite3_vfs_find(ptr::null())
    };
    if system.is_null() {
        return Err(failed(ffi::SQLITE_ERROR));
    }
    let name = format!("forebay-watched-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let name: &'static CStr = Box::leak(CString::new(name).expect("digits and letters").into_boxed_c_str());
    let shim: &'static Shim = Box::leak(Box::new(Shim { system, watch, turn: Mutex::new(()) }));
    // SAFETY: the system's VFS is never unregistered and its fields do not change.
    let of_system = unsafe { &*system };
    let own = c_int::try_from(size_of::<File>()).expect("a few words");
    let vfs = Box::leak(Box::new(sqlite3_vfs {
        iVersion: 2,
        szOsFile: own + of_system.szOsFile,
        mxPathname: of_system.mxPathname,
        pNext: ptr::null_mut(),
        zName: name.as_ptr(),
        pAppData: ptr::from_ref(shim).cast_mut().cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None::<unsafe extern "C" fn(*mut sqlite3_vfs, *const c_char, sqlite3_syscall_ptr) -> c_int>,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: the structure and all it points to live for the rest of the process.
    match unsafe { ffi::sqlite3_vfs_register(vfs, 0) } {
        ffi::SQLITE_OK => Ok(name),
        code => Err(failed(code)),
    }
}

/// The last component of a path that SQLite gave.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn file_name(path: *const c_char) -> Option<Arc<str>> {
    if path.is_null() {
        return None;
    }
    // SAFETY: a C string by contract.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    Some(path.rsplit('/').next().unwrap_or(&path).into())
}

/// # Safety
/// `vfs` is one that `register` made.
unsafe fn shim_of<'a>(vfs: *mut sqlite3_vfs) -> &'a Shim {
    // SAFETY: `register` put a leaked `Shim` there.
    unsafe { &*(*vfs).pAppData.cast::<Shim>() }
}

/// # Safety
/// `file` was opened by `open` and not closed.
unsafe fn parts<'a>(file: *mut sqlite3_file) -> (&'a Shim, *mut sqlite3_file, Option<&'a mut FileName>) {
    // SAFETY: SQLite gives back the memory that `open` filled, and uses a file from one thread at a time.
    unsafe {
        let file = &*file.cast::<File>();
        (&*file.shim, file.system, file.name.as_mut())
    }
}

/// Calls a method of the system's file.
macro_rules! system {
    ($file:expr, $method:ident $(, $argument:expr)*) => {
        // SAFETY: the system's file is open, and its methods take what SQLite gave us for it.
        unsafe { (*(*$file).pMethods).$method.expect("the unix VFS has all of version 2")($file $(, $argument)*) }
    };
}

impl Shim {
    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exists(&self, path: *const c_char) -> bool {
        let mut found = 0;
        // SAFETY: the system's VFS is alive and `path` is the C string that SQLite gave.
        let code = unsafe {
            (*self.system).xAccess.expect("every VFS has it")(
                self.system,
                path,
                ffi::SQLITE_ACCESS_EXISTS,
                &raw mut found,
            )
        };
        code == ffi::SQLITE_OK && found != 0
    }
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    path: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: ours, see `register`.
    let shim = unsafe { shim_of(vfs) };
    // SAFETY: `szOsFile` made the allocation large enough for ours and the system's behind it, and `File` is a
    // multiple of its alignment long.
    let (own, system) =
        unsafe { (file.cast::<File>(), file.cast::<u8>().add(size_of::<File>()).cast::<sqlite3_file>()) };
    // SAFETY: `own` is ours to fill. Null methods mean "not open": SQLite then does not call close.
    unsafe { (*own).base.pMethods = ptr::null() };
    let _turn = shim.turn();
    // SAFETY: null or a C string, as SQLite gives it.
    let name = unsafe { file_name(path) };
    if name.is_some() && shim.watch.faults.strike(Call::Open).is_some() {
        return ffi::SQLITE_CANTOPEN;
    }
    let is_new = name.is_some() && flags & ffi::SQLITE_OPEN_CREATE != 0 && !shim.exists(path);
    // SAFETY: the system's VFS gets memory of its own size and the arguments that SQLite gave.
    let code = unsafe { (*shim.system).xOpen.expect("every VFS has it")(shim.system, path, system, flags, out_flags) };
    // SAFETY: even a failed open may set methods, and then wants to be closed.
    let is_open = unsafe { !(*system).pMethods.is_null() };
    if code != ffi::SQLITE_OK {
        if is_open {
            system!(system, xClose);
        }
        return code;
    }
    let name = name.map_or(ptr::null_mut(), |name| {
        if is_new {
            shim.watch.trace.record(|| Event::Created { file: Arc::clone(&name) });
        }
        let log_or_journal = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
        let told = shim.watch.failed_syncs(&name);
        Box::into_raw(Box::new(FileName { name, folder_due: is_new && flags & log_or_journal != 0, told }))
    });
    // SAFETY: `own` is ours; see above.
    unsafe { own.write(File { base: sqlite3_file { pMethods: &raw const METHODS }, shim, system, name }) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: open until now.
    let (_, system, _) = unsafe { parts(file) };
    // SAFETY: `open` made the box, and SQLite closes a file once.
    unsafe {
        let name = (*file.cast::<File>()).name;
        if !name.is_null() {
            drop(Box::from_raw(name));
            (*file.cast::<File>()).name = ptr::null_mut();
        }
    }
    system!(system, xClose)
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, bytes: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: open.
    let (shim, system, name) = unsafe { parts(file) };
    if name.is_some() && shim.watch.faults.strike(Call::Read).is_some() {
        return ffi::SQLITE_IOERR_READ;
    }
    shim.watch.read_bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    system!(system, xRead, to, bytes, offset)
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, bytes: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: open.
    let (shim, system, name) = unsafe { parts(file) };
    let Some(name) = name else { return system!(system, xWrite, from, bytes, offset) };
    let _turn = shim.turn();
    let (bytes, failure) = match shim.watch.faults.strike(Call::Write) {
        None => (bytes, ffi::SQLITE_OK),
        Some(Harm::Io) => return ffi::SQLITE_IOERR_WRITE,
        Some(Harm::Full) => return ffi::SQLITE_FULL,
        Some(Harm::Short) => (bytes / 2, ffi::SQLITE_IOERR_WRITE),
    };
    let code = system!(system, xWrite, from, bytes, offset);
    if code != ffi::SQLITE_OK {
        return code;
    }
    let length = usize::try_from(bytes).unwrap_or(0);
    shim.watch.written_bytes.fetch_add(length as u64, Ordering::Relaxed);
    shim.watch.trace.record(|| {
        // SAFETY: SQLite gave at least that many bytes to write.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) };
        Event::Written { file: Arc::clone(&name.name), offset: offset.cast_unsigned(), bytes: bytes.into() }
    });
    failure
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: open.
    let (shim, system, name) = unsafe { parts(file) };
    let _turn = shim.turn();
    if name.is_some() && shim.watch.faults.strike(Call::Truncate).is_some() {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    let code = system!(system, xTruncate, size);
    if let (ffi::SQLITE_OK, Some(name)) = (code, name) {
        let size = size.cast_unsigned();
        shim.watch.trace.record(|| Event::Truncated { file: Arc::clone(&name.name), size });
    }
    code
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: open.
    let (shim, system, name) = unsafe { parts(file) };
    let Some(name) = name else { return system!(system, xSync, flags) };
    let _turn = shim.turn();
    let failed = if shim.watch.faults.strike(Call::Sync).is_some() {
        Some(shim.watch.fail_sync(&name.name))
    } else {
        // Linux tells every handle that was open once, and the pages are gone for all of them.
        Some(shim.watch.failed_syncs(&name.name)).filter(|times| *times > name.told)
    };
    if let Some(times) = failed {
        name.told = times;
        shim.watch.trace.record(|| Event::SyncFailed { file: Arc::clone(&name.name) });
        return ffi::SQLITE_IOERR_FSYNC;
    }
    let code = system!(system, xSync, flags);
    if code == ffi::SQLITE_OK {
        let folder = std::mem::take(&mut name.folder_due);
        shim.watch.syncs.fetch_add(1, Ordering::Relaxed);
        shim.watch.trace.record(|| Event::Synced { file: Arc::clone(&name.name), folder });
    }
    code
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xCheckReservedLock, held)
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    // SAFETY: open.
    let (shim, system, _) = unsafe { parts(file) };
    if shim.watch.faults.strike(Call::Map).is_some() {
        // SAFETY: SQLite reads the pointer whatever the code says.
        unsafe { *to = ptr::null_mut() };
        return ffi::SQLITE_IOERR_SHMMAP;
    }
    system!(system, xShmMap, region, bytes, extend, to)
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: open.
    let (_, system, _) = unsafe { parts(file) };
    system!(system, xShmUnmap, delete)
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, path: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: ours.
    let shim = unsafe { shim_of(vfs) };
    let _turn = shim.turn();
    if shim.watch.faults.strike(Call::Delete).is_some() {
        return ffi::SQLITE_IOERR_DELETE;
    }
    // SAFETY: the arguments that SQLite gave.
    let code = unsafe { (*shim.system).xDelete.expect("every VFS has it")(shim.system, path, sync_folder) };
    // SAFETY: a C string.
    if let (ffi::SQLITE_OK, Some(file)) = (code, unsafe { file_name(path) }) {
        shim.watch.trace.record(|| Event::Deleted { file, folder: sync_folder != 0 });
    }
    code
}

unsafe extern "C" fn access(vfs: *mut sqlite3_vfs, path: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: ours, and the arguments that SQLite gave.
    unsafe {
        let system = shim_of(vfs).system;
        (*system).xAccess.expect("every VFS has it")(system, path, flags, out)
    }
}

unsafe extern "C" fn full_pathname(vfs: *mut sqlite3_vfs, path: *const c_char, most: c_int, out: *mut c_char) -> c_int {
    // SAFETY: ours, and the arguments that SQLite gave.
    unsafe {
        let system = shim_of(vfs).system;
        (*system).xFullPathname.expect("every VFS has it")(system, path, most, out)
    }
}

unsafe extern "C" fn randomness(vfs: *mut sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    // SAFETY: ours, and the arguments that SQLite gave.
    unsafe {
        let system = shim_of(vfs).system;
        (*system).xRandomness.expect("every VFS has it")(system, bytes, out)
    }
}

unsafe extern "C" fn sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: ours.
    unsafe {
        let system = shim_of(vfs).system;
        (*system).xSleep.expect("every VFS has it")(system, microseconds)
    }
}

unsafe extern "C" fn current_time(vfs: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: ours, and the arguments that SQLite gave.
    unsafe {
        let system = shim_of(vfs).system;
        (*system).xCurrentTime.expect("every VFS has it")(system, out)
    }
}

unsafe extern "C" fn current_time_int64(vfs: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: ours, and the arguments that SQLite gave; the unix VFS is of version 3.
    unsafe {
        let system = shim_of(vfs).system;
        (*system).xCurrentTimeInt64.expect("the unix VFS has it")(system, out)
    }
}

unsafe extern "C" fn get_last_error(vfs: *mut sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    // SAFETY: ours, and the arguments that SQLite gave.
    unsafe {
        let system = shim_of(vfs).system;
        (*system).xGetLastError.map_or(0, |ask| ask(system, bytes, out))
    }
}
