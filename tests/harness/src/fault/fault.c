/*
 * A library that makes the machine under a server go wrong, loaded into it by LD_PRELOAD (tests/harness/src/fault.rs).
 *
 * Owns: the calls below, for the files in one folder. A page that the test writes says what fails now; the calls of a
 * database are written to a trace, so that a test can say what a disk holds when the power goes. Everything that no
 * fault is asked for goes through untouched. Runs on whichever thread makes the call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The page, one number after the other: fault.rs has the same order. */
enum { LOADED, CLOCK_MS, SYNC_DELAY_MS, SYNC_ERRNO, WRITE_ERRNO, SPAWN_ERRNO, THREAD_ERRNO, FIRED, CHANGES_LEFT, THREADS_LEFT, PANICS, THREAD_NAME };

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, UNLINK, SYNC_FOLDER };

/* What a descriptor is: nothing of ours, one of the database's files (and which), their folder, another file. */
enum { NONE, DATABASE, WAL, JOURNAL, FOLDER, OTHER };

#define FDS 4096
#define NAME 4096

struct record {
    uint8_t op, file;
    uint16_t unused;
    uint32_t length;
    uint64_t offset;
};

static _Atomic int64_t *page;
static _Atomic uint8_t kinds[FDS];
static char folder[NAME], database[NAME], database_folder[NAME];
static int trace_fd = -1;
/* Whether the trace of this life has what the file held before. */
static int is_known[JOURNAL + 1];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What stands behind each call; all are looked up at the load, since between fork and exec nobody may. */
#define CALLS(call)                                                                                                    \
    call(open64) call(close) call(write) call(pwrite64) call(ftruncate64) call(fsync) call(fdatasync) call(unlink)     \
        call(mkdir) call(rename) call(clock_gettime) call(posix_spawnp) call(pthread_create)
#define BEHIND(name) static __typeof__(&name) behind_##name;
CALLS(BEHIND)
#define LOOK_UP(name) behind_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name);

static void look_up(void)
{
    CALLS(LOOK_UP)
}

/* A call may come before the load is through, by another library's. */
#define REAL(name, ...) ((behind_##name ? (void)0 : look_up()), behind_##name(__VA_ARGS__))

static int64_t asked(int which)
{
    return page ? atomic_load(&page[which]) : 0;
}

/* Whether a call fails now; it has its errno then. A number below 0 is for the next call alone. */
static int fails(int which)
{
    int64_t error = asked(which);
    while (error < 0 && !atomic_compare_exchange_weak(&page[which], &error, 0))
        ;
    if (!error)
        return 0;
    atomic_fetch_add(&page[FIRED], 1);
    errno = (int)(error < 0 ? -error : error);
    return 1;
}

/* Whether a change of a file or folder fails now. The process may be to die of it, before anything is changed. */
static int fails_to_change(void)
{
    if (asked(CHANGES_LEFT) > 0 && atomic_fetch_sub(&page[CHANGES_LEFT], 1) == 1)
        kill(getpid(), SIGKILL);
    return fails(WRITE_ERRNO);
}

static void copy(char *into, const char *name)
{
    const char *value = getenv(name);
    snprintf(into, NAME, "%s", value ? value : "");
}

__attribute__((constructor)) static void load(void)
{
    char path[NAME], trace[NAME + 32];
    look_up();
    copy(path, "GG_FAULT_PAGE");
    int fd = path[0] ? REAL(open64, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REAL(close, fd);
    if (mapped == MAP_FAILED)
        return;
    page = mapped;
    copy(folder, "GG_FAULT_FOLDER");
    copy(database, "GG_FAULT_DATABASE");
    snprintf(database_folder, NAME, "%s", database);
    char *slash = strrchr(database_folder, '/');
    if (slash)
        *slash = 0;
    copy(path, "GG_FAULT_TRACE");
    int64_t life = atomic_fetch_add(&page[LOADED], 1);
    if (path[0]) {
        /* A file for each life: the last record of one that was killed may be cut. */
        snprintf(trace, sizeof trace, "%s.%d", path, (int)life);
        trace_fd = REAL(open64, trace, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    }
}

/* The children of the server are not meant, nor is a process between fork and exec: they have another environment. */

static void tell(uint8_t op, uint8_t file, uint64_t offset, const void *bytes, size_t length)
{
    struct record record = {op, file, 0, (uint32_t)length, offset};
    struct iovec parts[2] = {{&record, sizeof record}, {(void *)bytes, length}};
    if (trace_fd >= 0 && writev(trace_fd, parts, length ? 2 : 1) < 0)
        abort();
}

static uint8_t kind_of(const char *path)
{
    size_t length = strlen(database);
    if (length && !strncmp(path, database, length)) {
        const char *rest = path + length;
        if (!*rest)
            return DATABASE;
        if (!strcmp(rest, "-wal"))
            return WAL;
        if (!strcmp(rest, "-journal"))
            return JOURNAL;
    }
    if (length && !strcmp(path, database_folder))
        return FOLDER;
    length = strlen(folder);
    return length && !strncmp(path, folder, length) ? OTHER : NONE;
}

static uint8_t kind(int fd)
{
    return fd >= 0 && fd < FDS ? atomic_load(&kinds[fd]) : NONE;
}

static int is_database(uint8_t kind)
{
    return kind >= DATABASE && kind <= JOURNAL;
}

/* What the file holds as this life begins: how much of it is on the disk is not known to us. */
static void tell_content(int fd, uint8_t file)
{
    struct stat status;
    if (is_known[file] || fstat(fd, &status))
        return;
    is_known[file] = 1;
    tell(TRUNCATE, file, (uint64_t)status.st_size, NULL, 0);
    char *bytes = malloc((size_t)status.st_size + 1);
    ssize_t count = bytes ? pread(fd, bytes, (size_t)status.st_size, 0) : -1;
    if (count != status.st_size)
        abort();
    if (count)
        tell(WRITE, file, 0, bytes, (size_t)count);
    free(bytes);
}

static int opened(const char *path, int flags, mode_t mode)
{
    uint8_t kind = kind_of(path);
    int changes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    if (kind != NONE && changes && fails_to_change())
        return -1;
    if (!is_database(kind)) {
        int fd = REAL(open64, path, flags, mode);
        if (fd >= 0 && fd < FDS)
            atomic_store(&kinds[fd], kind);
        return fd;
    }
    pthread_mutex_lock(&lock);
    int was_there = !access(path, F_OK);
    int fd = REAL(open64, path, flags, mode);
    if (fd >= 0 && fd < FDS) {
        atomic_store(&kinds[fd], kind);
        if (!was_there) {
            is_known[kind] = 1;
            tell(CREATE, kind, 0, NULL, 0);
        } else if (changes) {
            tell_content(fd, kind);
        }
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags)
    return opened(path, flags, mode);
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS)
        atomic_store(&kinds[fd], NONE);
    return REAL(close, fd);
}

static ssize_t written(int fd, const void *bytes, size_t length, int64_t offset)
{
    uint8_t file = kind(fd);
    if (file != NONE && fails_to_change())
        return -1;
    if (!is_database(file))
        return offset < 0 ? REAL(write, fd, bytes, length) : REAL(pwrite64, fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    int64_t at = offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset;
    ssize_t count = offset < 0 ? REAL(write, fd, bytes, length) : REAL(pwrite64, fd, bytes, length, offset);
    int error = errno;
    if (count > 0)
        tell(WRITE, file, (uint64_t)at, bytes, (size_t)count);
    pthread_mutex_unlock(&lock);
    errno = error;
    return count;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    return written(fd, bytes, length, -1);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    return written(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    return written(fd, bytes, length, offset);
}

static int truncated(int fd, int64_t length)
{
    uint8_t file = kind(fd);
    if (file != NONE && fails_to_change())
        return -1;
    pthread_mutex_lock(&lock);
    int done = REAL(ftruncate64, fd, length);
    int error = errno;
    if (!done && is_database(file))
        tell(TRUNCATE, file, (uint64_t)length, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t length)
{
    return truncated(fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return truncated(fd, length);
}

/* A sync that is counted reaches the trace, not the disk: the trace is the disk. */
static int synced(int fd, int is_data)
{
    uint8_t file = kind(fd);
    if (file == NONE)
        return is_data ? REAL(fdatasync, fd) : REAL(fsync, fd);
    int64_t delay = asked(SYNC_DELAY_MS);
    if (delay > 0) {
        struct timespec time = {delay / 1000, delay % 1000 * 1000000};
        atomic_fetch_add(&page[FIRED], 1);
        nanosleep(&time, NULL);
    }
    struct timespec moment = {0, 1000000};
    if (delay < 0)
        atomic_fetch_add(&page[FIRED], 1);
    while (asked(SYNC_DELAY_MS) < 0)
        nanosleep(&moment, NULL);
    if (fails(SYNC_ERRNO))
        return -1;
    if (trace_fd < 0)
        return is_data ? REAL(fdatasync, fd) : REAL(fsync, fd);
    pthread_mutex_lock(&lock);
    if (is_database(file))
        tell(SYNC, file, 0, NULL, 0);
    if (file == FOLDER)
        tell(SYNC_FOLDER, 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd)
{
    return synced(fd, 0);
}

int fdatasync(int fd)
{
    return synced(fd, 1);
}

int unlink(const char *path)
{
    uint8_t file = kind_of(path);
    if (file != NONE && fails_to_change())
        return -1;
    if (!is_database(file))
        return REAL(unlink, path);
    pthread_mutex_lock(&lock);
    int done = REAL(unlink, path);
    int error = errno;
    if (!done)
        tell(UNLINK, file, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int mkdir(const char *path, mode_t mode)
{
    /* What is there is told before the disk is asked. */
    int is_change = kind_of(path) != NONE && access(path, F_OK);
    return is_change && fails_to_change() ? -1 : REAL(mkdir, path, mode);
}

int rename(const char *from, const char *to)
{
    return kind_of(to) != NONE && fails_to_change() ? -1 : REAL(rename, from, to);
}

/* Whether this thread is to panic: its name begins as the page says. The one that does takes the wish away. */
static int is_to_panic(void)
{
    char name[16] = "";
    int64_t wish = asked(PANICS);
    if (wish <= 0 || prctl(PR_GET_NAME, name))
        return 0;
    const char *wanted = (const char *)(page + THREAD_NAME);
    return !strncmp(name, wanted, strlen(wanted)) && atomic_compare_exchange_strong(&page[PANICS], &wish, wish - 1);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    /*
     * A clock that can not be read is a panic in Rust: the one way from outside to have one in any thread. Not the
     * monotonic one: channels look at it in the middle of their own work, where no panic could come from.
     */
    if (clock == CLOCK_REALTIME && is_to_panic()) {
        errno = EINVAL;
        return -1;
    }
    int done = REAL(clock_gettime, clock, time);
    int64_t moved = asked(CLOCK_MS);
    if (!done && clock == CLOCK_REALTIME && moved) {
        int64_t ns = time->tv_nsec + moved % 1000 * 1000000;
        time->tv_sec += moved / 1000;
        time->tv_sec += ns < 0 ? -1 : ns / 1000000000;
        time->tv_nsec = (ns + 1000000000) % 1000000000;
    }
    return done;
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    if (fails(SPAWN_ERRNO))
        return errno;
    return REAL(posix_spawnp, pid, file, actions, attributes, arguments, environment);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    /* None comes behind that one either. */
    if (asked(THREADS_LEFT) > 0 && atomic_fetch_sub(&page[THREADS_LEFT], 1) == 1)
        atomic_store(&page[THREAD_ERRNO], EAGAIN);
    if (fails(THREAD_ERRNO))
        return errno;
    return REAL(pthread_create, thread, attributes, body, argument);
}
